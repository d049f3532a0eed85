#include "checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "checkpoint/byte_reader.h"
#include "checkpoint/json.h"

namespace atom {
namespace {

using nlohmann::ordered_json;

/// The format allows 100 MB; what a hostile header may take in memory is 25 times its size. A real one of
/// 8 MB has 80,000 tensors.
constexpr uint64_t kMaxHeaderBytes = 8'000'000;
constexpr size_t kMaxTensors = size_t{1} << 18;
constexpr size_t kMaxDimensions = 8;
constexpr uint64_t kMaxElements = uint64_t{1} << 56;

/// A non-negative integer of the header.
uint64_t get_size(const ordered_json& value, const std::string& where, const char* field) {
  require(value.is_number_unsigned(), "{}: {}: expected an integer that is not negative, found {}", where,
          field, printable(value.dump(-1, ' ', true)));
  return value.get<uint64_t>();
}

const ordered_json& get_field(const ordered_json& object, const std::string& where, const char* field) {
  const auto it = object.find(field);
  require(it != object.end(), "{}: {} is missing", where, field);
  return *it;
}

/// One tensor's description. `data` is everything behind the header.
SafetensorsEntry parse_entry(const std::string& name, const ordered_json& value, const std::string& where,
                             std::span<const std::byte> data) {
  require(value.is_object(), "{}: expected an object, found {}", where, value.type_name());
  SafetensorsEntry entry;
  entry.name = name;
  const ordered_json& dtype = get_field(value, where, "dtype");
  const auto parsed = dtype.is_string() ? parse_dtype(dtype.get_ref<const std::string&>()) : std::nullopt;
  require(parsed.has_value(), "{}: dtype: expected F32, F16, BF16, I64, I32, I8 or U8, found {}", where,
          printable(dtype.dump(-1, ' ', true)));
  entry.dtype = *parsed;

  const ordered_json& shape = get_field(value, where, "shape");
  require(shape.is_array() && shape.size() <= kMaxDimensions,
          "{}: shape: expected an array of at most {} sizes, found {}", where, kMaxDimensions,
          shape.is_array() ? fmt::format("{} sizes", shape.size()) : shape.type_name());
  uint64_t elements = 1;
  for (const ordered_json& dimension : shape) {
    const uint64_t size = get_size(dimension, where, "shape");
    require(size <= kMaxElements && (size == 0 || elements <= kMaxElements / size),
            "{}: shape: {} elements and more are too many", where, kMaxElements);
    elements *= size;
    entry.shape.push_back(static_cast<int64_t>(size));
  }

  const ordered_json& offsets = get_field(value, where, "data_offsets");
  require(offsets.is_array() && offsets.size() == 2, "{}: data_offsets: expected two integers", where);
  const uint64_t begin = get_size(offsets[0], where, "data_offsets");
  const uint64_t end = get_size(offsets[1], where, "data_offsets");
  require(begin <= end && end <= data.size(),
          "{}: data_offsets: expected a range in the {} bytes of data, found {} to {}", where, data.size(),
          begin, end);
  const uint64_t expected = elements * size_of(entry.dtype);
  require(end - begin == expected, "{}: data_offsets: its shape and dtype need {} bytes, found {}", where,
          expected, end - begin);
  for (const auto& [field, ignored] : value.items()) {
    require(field == "dtype" || field == "shape" || field == "data_offsets", "{}: unknown field \"{}\"",
            where, printable(field));
  }
  entry.bytes = data.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
  return entry;
}

}  // namespace

std::optional<DType> parse_dtype(std::string_view name) {
  for (const DType type :
       {DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32, DType::i8, DType::u8}) {
    if (name_of(type) == name) return type;
  }
  return std::nullopt;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : mapping_(std::make_shared<const MappedFile>(path)), name_(path.string()) {
  parse(mapping_->bytes());
}

SafetensorsFile::SafetensorsFile(std::span<const std::byte> bytes, std::string name)
    : name_(std::move(name)) {
  parse(bytes);
}

void SafetensorsFile::parse(std::span<const std::byte> bytes) {
  ByteReader in(bytes, name_);
  const auto header_bytes = in.read<uint64_t>("header length");
  require(header_bytes <= kMaxHeaderBytes, "{}: header length: expected at most {} bytes, found {}", name_,
          kMaxHeaderBytes, header_bytes);
  const auto header = in.take(header_bytes, "header");
  const std::string_view text(reinterpret_cast<const char*>(header.data()), header.size());
  require(text.starts_with('{'), "{}: not a safetensors file: expected the header to begin with \"{{\"",
          name_);
  const ordered_json document = parse_json(text, name_, {kMaxHeaderBytes, 8});
  const auto data = bytes.subspan(in.position());
  require(document.size() <= kMaxTensors, "{}: expected at most {} tensors, found {}", name_, kMaxTensors,
          document.size());

  for (const auto& [name, value] : document.get_ref<const ordered_json::object_t&>()) {
    if (name != "__metadata__") {
      entries_.push_back(
          parse_entry(name, value, fmt::format("{}: tensor \"{}\"", name_, printable(name)), data));
      continue;
    }
    require(value.is_object(), "{}: __metadata__: expected an object, found {}", name_, value.type_name());
    for (const auto& [key, text_value] : value.items()) {
      require(text_value.is_string(), "{}: __metadata__: {}: expected a string, found {}", name_,
              printable(key), text_value.type_name());
      metadata_[key] = text_value.get<std::string>();
    }
  }

  // Without gaps and overlaps the ranges, sorted, follow one another from the first byte to the last.
  std::stable_sort(
      entries_.begin(), entries_.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
        return std::pair(a.bytes.data(), a.bytes.size()) < std::pair(b.bytes.data(), b.bytes.size());
      });
  const std::byte* expected = data.data();
  for (const SafetensorsEntry& entry : entries_) {
    require(entry.bytes.data() == expected,
            "{}: tensor \"{}\": data_offsets: expected to begin at {}, found {} ({})", name_,
            printable(entry.name), expected - data.data(), entry.bytes.data() - data.data(),
            entry.bytes.data() < expected ? "tensors overlap" : "a gap between tensors");
    expected += entry.bytes.size();
  }
  require(expected == data.data() + data.size(), "{}: {} bytes behind the last tensor", name_,
          data.data() + data.size() - expected);
  for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].name, i);
}

const SafetensorsEntry* SafetensorsFile::find(const std::string& name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &entries_[it->second];
}

const SafetensorsEntry& SafetensorsFile::get(const std::string& name) const {
  const SafetensorsEntry* entry = find(name);
  require(entry != nullptr, "{}: tensor \"{}\" is missing", name_, printable(name));
  return *entry;
}

Tensor SafetensorsFile::load(const std::string& name) const {
  const SafetensorsEntry& entry = get(name);
  if (reinterpret_cast<uintptr_t>(entry.bytes.data()) % size_of(entry.dtype) == 0) {
    return {entry.dtype, entry.shape, entry.bytes, mapping_};
  }
  auto storage = std::make_shared<Buffer<std::byte>>(entry.bytes.size());
  std::memcpy(storage->data(), entry.bytes.data(), entry.bytes.size());
  return {entry.dtype, entry.shape, std::as_bytes(storage->span()), storage};
}

void SafetensorsFile::read_float(const std::string& name, std::span<float> out) const {
  const SafetensorsEntry& entry = get(name);
  require(is_float(entry.dtype), "{}: tensor \"{}\": expected F32, F16 or BF16, found {}", name_,
          printable(name), name_of(entry.dtype));
  const Tensor tensor{entry.dtype, entry.shape, entry.bytes, mapping_};
  require(out.size() == static_cast<size_t>(tensor.elements()),
          "{}: tensor \"{}\": expected {} values, it has {}", name_, printable(name), out.size(),
          tensor.elements());
  if (!out.empty()) to_float(tensor, out);
  // The caller has its copy; what was read need not stay resident.
  if (mapping_) mapping_->release(entry.bytes);
}

}  // namespace atom
