#include "checkpoint/gguf_file.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "checkpoint/byte_reader.h"
#include "checkpoint/json.h"

namespace atom {
namespace {

// Real files have dozens of keys and at most some thousand tensors; what is kept per entry is several times
// its smallest size in the file, so the limits bound memory.
constexpr uint64_t kMaxKeys = 1u << 16;
constexpr uint64_t kMaxTensors = 1u << 16;
constexpr uint64_t kMaxNameBytes = 1u << 16;
constexpr uint32_t kMaxDimensions = 4;
constexpr int kMaxArrayDepth = 4;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxAlignment = 1u << 20;

size_t size_of_scalar(GgufType type) {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::boolean:
      return 1;
    case GgufType::u16:
    case GgufType::i16:
      return 2;
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::f32:
      return 4;
    case GgufType::u64:
    case GgufType::i64:
    case GgufType::f64:
      return 8;
    default:
      return 0;
  }
}

template <class T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

/// A scalar of any integer type; nothing for other types. Unsigned values above the signed range are refused
/// too.
std::optional<int64_t> load_integer(GgufType type, const std::byte* p) {
  switch (type) {
    case GgufType::u8:
      return load<uint8_t>(p);
    case GgufType::i8:
      return load<int8_t>(p);
    case GgufType::u16:
      return load<uint16_t>(p);
    case GgufType::i16:
      return load<int16_t>(p);
    case GgufType::u32:
      return load<uint32_t>(p);
    case GgufType::i32:
      return load<int32_t>(p);
    case GgufType::i64:
      return load<int64_t>(p);
    case GgufType::u64: {
      const auto value = load<uint64_t>(p);
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

GgufType read_type(ByteReader& in, std::string_view file, std::string_view key) {
  const auto type = in.read<uint32_t>(key);
  require(type <= static_cast<uint32_t>(GgufType::f64),
          "{}: metadata key \"{}\": expected a type from 0 to 12, found {}", file, printable(key), type);
  return static_cast<GgufType>(type);
}

void skip_elements(ByteReader& in, std::string_view file, std::string_view key, GgufType type, uint64_t count,
                   int depth);

/// Reads an array's element type and count and passes over its elements.
GgufValue read_array(ByteReader& in, std::span<const std::byte> bytes, std::string_view file,
                     std::string_view key, int depth) {
  require(depth < kMaxArrayDepth, "{}: metadata key \"{}\": arrays nested deeper than {}", file,
          printable(key), kMaxArrayDepth);
  GgufValue value{GgufType::array, read_type(in, file, key), in.read<uint64_t>(key), {}};
  const size_t begin = in.position();
  skip_elements(in, file, key, value.element, value.count, depth);
  if (!bytes.empty()) value.bytes = bytes.subspan(begin, in.position() - begin);
  return value;
}

void skip_elements(ByteReader& in, std::string_view file, std::string_view key, GgufType type, uint64_t count,
                   int depth) {
  if (const size_t size = size_of_scalar(type); size != 0) {
    require(count <= in.remaining() / size,
            "{}: truncated or corrupt: metadata key \"{}\" has {} elements of {} bytes, {} bytes are left",
            file, printable(key), count, size, in.remaining());
    in.take(count * size, key);
    return;
  }
  // Each string or array takes bytes of its own, so a huge count ends at the end of the file.
  for (uint64_t i = 0; i < count; ++i) {
    if (type == GgufType::string) {
      in.string(key);
    } else {
      read_array(in, {}, file, key, depth + 1);
    }
  }
}

}  // namespace

std::string gguf_type_name(uint32_t type) {
  static constexpr std::array<const char*, 13> kNames = {
      "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};
  if (type < kNames.size()) return kNames[type];
  return fmt::format("type {}", type);
}

GgufFile::GgufFile(std::span<const std::byte> bytes, std::string name) : name_(std::move(name)) {
  ByteReader in(bytes, name_);
  const auto magic = in.take(4, "magic");
  require(std::memcmp(magic.data(), "GGUF", 4) == 0,
          "{}: not a GGUF file: expected the magic \"GGUF\", found \"{}\"", name_,
          printable({reinterpret_cast<const char*>(magic.data()), 4}));
  version_ = in.read<uint32_t>("version");
  require(version_ == 2 || version_ == 3, "{}: GGUF version: expected 2 or 3 (little-endian), found {}{}",
          name_, version_, (version_ & 0xFFFFu) == 0 && version_ != 0 ? " (a big-endian file)" : "");
  const auto tensor_count = in.read<uint64_t>("tensor count");
  const auto key_count = in.read<uint64_t>("metadata count");
  require(key_count <= kMaxKeys, "{}: metadata count: expected at most {}, found {}", name_, kMaxKeys,
          key_count);
  require(tensor_count <= kMaxTensors, "{}: tensor count: expected at most {}, found {}", name_, kMaxTensors,
          tensor_count);

  for (uint64_t i = 0; i < key_count; ++i) {
    const std::string_view key = in.string("metadata key");
    require(!key.empty() && key.size() <= kMaxNameBytes,
            "{}: metadata key {}: expected 1 to {} bytes, found {}", name_, i, kMaxNameBytes, key.size());
    const GgufType type = read_type(in, name_, key);
    GgufValue value{type, type, 0, {}};
    if (type == GgufType::array) {
      value = read_array(in, bytes, name_, key, 0);
    } else {
      const size_t begin = in.position();
      skip_elements(in, name_, key, type, 1, 0);
      value.bytes = bytes.subspan(begin, in.position() - begin);
    }
    if (type == GgufType::boolean) {
      const auto byte = std::to_integer<int>(value.bytes[0]);
      require(byte <= 1, "{}: metadata key \"{}\": expected a bool of 0 or 1, found {}", name_,
              printable(key), byte);
    }
    require(metadata_.emplace(key, value).second, "{}: metadata key \"{}\" appears twice", name_,
            printable(key));
    keys_.push_back(key);
  }
  read_tensors(in, tensor_count, bytes);
  check_overlap();
}

void GgufFile::read_tensors(ByteReader& in, uint64_t count, std::span<const std::byte> bytes) {
  const uint64_t alignment = find_uint("general.alignment").value_or(kDefaultAlignment);
  require(std::has_single_bit(alignment) && alignment <= kMaxAlignment,
          "{}: general.alignment: expected a power of two up to {}, found {}", name_, kMaxAlignment,
          alignment);

  std::vector<uint64_t> offsets;
  std::unordered_set<std::string_view> seen;
  for (uint64_t i = 0; i < count; ++i) {
    GgufTensor tensor;
    tensor.name = in.string("tensor name");
    require(!tensor.name.empty() && tensor.name.size() <= kMaxNameBytes,
            "{}: name of tensor {}: expected 1 to {} bytes, found {}", name_, i, kMaxNameBytes,
            tensor.name.size());
    const std::string label = printable(tensor.name);
    require(seen.insert(tensor.name).second, "{}: tensor \"{}\" appears twice", name_, label);
    const auto dimensions = in.read<uint32_t>(tensor.name);
    require(dimensions >= 1 && dimensions <= kMaxDimensions,
            "{}: tensor \"{}\": expected 1 to {} dimensions, found {}", name_, label, kMaxDimensions,
            dimensions);
    uint64_t elements = 1;
    for (uint32_t d = 0; d < dimensions; ++d) {
      const auto size = in.read<uint64_t>(tensor.name);
      // 2^56 elements of up to 8 bytes stay below 2^63, so that later products cannot overflow.
      constexpr uint64_t kMaxElements = uint64_t{1} << 56;
      require(size >= 1 && size <= kMaxElements && elements <= kMaxElements / size,
              "{}: tensor \"{}\": dimension {} of {} is out of range", name_, label, d, size);
      elements *= size;
      tensor.shape.push_back(static_cast<int64_t>(size));
    }
    std::reverse(tensor.shape.begin(), tensor.shape.end());
    const auto type = in.read<uint32_t>(tensor.name);
    const auto layout = find_ggml_layout(type);
    if (!layout) {
      fail("{}: tensor \"{}\": expected one of the types {}, found {}", name_, label, ggml_type_names(),
           ggml_type_name(type));
    }
    tensor.type = static_cast<GgmlType>(type);
    require(static_cast<uint64_t>(tensor.shape.back()) % layout->elements == 0,
            "{}: tensor \"{}\": expected rows of a multiple of {} values for {}, found {}", name_, label,
            layout->elements, layout->name, tensor.shape.back());
    const uint64_t size = elements / layout->elements * layout->bytes;
    require(size <= bytes.size(), "{}: tensor \"{}\": its {} bytes are more than the file's {}", name_, label,
            size, bytes.size());
    const auto offset = in.read<uint64_t>(tensor.name);
    require(offset % alignment == 0,
            "{}: tensor \"{}\": expected an offset that is a multiple of {}, found {}", name_, label,
            alignment, offset);
    offsets.push_back(offset);
    tensor.bytes =
        bytes.first(static_cast<size_t>(size));  // Moved to its place when the data's begin is known.
    tensors_.push_back(std::move(tensor));
  }
  if (count == 0) return;

  const uint64_t begin = (in.position() + alignment - 1) / alignment * alignment;
  require(begin <= bytes.size(), "{}: truncated: tensor data should begin at byte {}, the file has {}", name_,
          begin, bytes.size());
  const auto data = bytes.subspan(static_cast<size_t>(begin));
  for (size_t i = 0; i < tensors_.size(); ++i) {
    GgufTensor& tensor = tensors_[i];
    const size_t size = tensor.bytes.size();
    require(offsets[i] <= data.size() && size <= data.size() - offsets[i],
            "{}: truncated or corrupt: tensor \"{}\" needs {} bytes at offset {} of {} bytes of data", name_,
            printable(tensor.name), size, offsets[i], data.size());
    tensor.bytes = data.subspan(static_cast<size_t>(offsets[i]), size);
  }
}

void GgufFile::check_overlap() const {
  std::vector<const GgufTensor*> sorted;
  for (const GgufTensor& tensor : tensors_) sorted.push_back(&tensor);
  std::sort(sorted.begin(), sorted.end(),
            [](const GgufTensor* a, const GgufTensor* b) { return a->bytes.data() < b->bytes.data(); });
  for (size_t i = 1; i < sorted.size(); ++i) {
    const auto& before = sorted[i - 1]->bytes;
    require(before.data() + before.size() <= sorted[i]->bytes.data(), "{}: tensors \"{}\" and \"{}\" overlap",
            name_, printable(sorted[i - 1]->name), printable(sorted[i]->name));
  }
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto it = metadata_.find(key);
  return it == metadata_.end() ? nullptr : &it->second;
}

const GgufValue& GgufFile::get(std::string_view key) const {
  const GgufValue* value = find(key);
  require(value != nullptr, "{}: metadata key \"{}\" is missing", name_, key);
  return *value;
}

std::optional<uint64_t> GgufFile::find_uint(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto integer = load_integer(value->type, value->bytes.data());
  require(integer.has_value() && *integer >= 0,
          "{}: metadata key \"{}\": expected an integer from 0 to 2^63 - 1, found {} of type {}", name_,
          printable(key), integer ? std::to_string(*integer) : "a value",
          gguf_type_name(static_cast<uint32_t>(value->type)));
  return static_cast<uint64_t>(*integer);
}

std::optional<double> GgufFile::find_float(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type == GgufType::f32) return load<float>(value->bytes.data());
  if (value->type == GgufType::f64) return load<double>(value->bytes.data());
  fail("{}: metadata key \"{}\": expected f32 or f64, found {}", name_, printable(key),
       gguf_type_name(static_cast<uint32_t>(value->type)));
}

std::optional<bool> GgufFile::find_bool(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  require(value->type == GgufType::boolean, "{}: metadata key \"{}\": expected bool, found {}", name_,
          printable(key), gguf_type_name(static_cast<uint32_t>(value->type)));
  return value->bytes[0] != std::byte{0};
}

std::optional<std::string_view> GgufFile::find_string(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  require(value->type == GgufType::string, "{}: metadata key \"{}\": expected string, found {}", name_,
          printable(key), gguf_type_name(static_cast<uint32_t>(value->type)));
  const std::string_view text(reinterpret_cast<const char*>(value->bytes.data()) + 8,
                              value->bytes.size() - 8);
  require(is_valid_utf8(text), "{}: metadata key \"{}\": not valid UTF-8", name_, printable(key));
  return text;
}

uint64_t GgufFile::get_uint(std::string_view key) const {
  get(key);
  return *find_uint(key);
}

double GgufFile::get_float(std::string_view key) const {
  get(key);
  return *find_float(key);
}

std::string_view GgufFile::get_string(std::string_view key) const {
  get(key);
  return *find_string(key);
}

const GgufValue& GgufFile::get_string_array(std::string_view key) const {
  const GgufValue& value = get(key);
  require(value.type == GgufType::array && value.element == GgufType::string,
          "{}: metadata key \"{}\": expected an array of strings, found {}", name_, printable(key),
          gguf_type_name(static_cast<uint32_t>(value.type == GgufType::array ? value.element : value.type)));
  return value;
}

uint64_t GgufFile::count_strings(std::string_view key) const {
  return get_string_array(key).count;
}

void GgufFile::for_each_string(std::string_view key,
                               const std::function<void(uint64_t, std::string_view)>& visit) const {
  const GgufValue& value = get_string_array(key);
  ByteReader in(value.bytes, name_);
  for (uint64_t i = 0; i < value.count; ++i) visit(i, in.string(key));
}

std::vector<int64_t> GgufFile::get_ints(std::string_view key) const {
  const GgufValue& value = get(key);
  const size_t size = value.type == GgufType::array ? size_of_scalar(value.element) : 0;
  std::vector<int64_t> out;
  if (size != 0) {
    out.reserve(static_cast<size_t>(value.count));
    for (uint64_t i = 0; i < value.count; ++i) {
      const auto integer = load_integer(value.element, value.bytes.data() + i * size);
      if (!integer) break;
      out.push_back(*integer);
    }
  }
  require(size != 0 && out.size() == value.count,
          "{}: metadata key \"{}\": expected an array of integers, found {}", name_, printable(key),
          gguf_type_name(static_cast<uint32_t>(value.element)));
  return out;
}

}  // namespace atom
