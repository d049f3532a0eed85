#include "checkpoint/json.h"

#include <array>
#include <charconv>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/mapped_file.h"

namespace atom {
namespace {

using nlohmann::ordered_json;

/// Builds the document from parser events, which come without recursion.
class Builder : public nlohmann::json_sax<ordered_json> {
 public:
  Builder(std::string_view source, int max_depth) : source_(source), max_depth_(max_depth) {}

  ordered_json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(size_t) override { return open(ordered_json::object()); }
  bool start_array(size_t) override { return open(ordered_json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& value) override {
    Open& top = open_.back();
    require(top.keys.insert(value).second, "{}: invalid JSON: the key \"{}\" appears twice", source_,
            printable(value));
    top.key = std::move(value);
    return true;
  }

  bool parse_error(size_t position, const std::string& token,
                   const nlohmann::detail::exception& error) override {
    // what() is "[json.exception.parse_error.101] parse error at line 1, column 2: reason", or
    // "[json.exception.out_of_range.406] number overflow parsing '1e999'".
    std::string_view reason = error.what();
    if (const size_t at = reason.find("] "); reason.starts_with('[') && at != std::string_view::npos) {
      reason.remove_prefix(at + 2);
    }
    fail("{}: invalid JSON at byte {}: {}", source_, position, printable(reason, 200));
  }

 private:
  /// An object or array whose end has not come yet.
  struct Open {
    ordered_json value;
    std::string key;
    std::unordered_set<std::string> keys;
  };

  bool add(ordered_json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return true;
    }
    Open& top = open_.back();
    if (top.value.is_array()) {
      top.value.get_ref<ordered_json::array_t&>().push_back(std::move(value));
    } else {
      append_member(top.value.get_ref<ordered_json::object_t&>(), std::move(top.key), std::move(value));
    }
    return true;
  }

  bool open(ordered_json value) {
    require(open_.size() < static_cast<size_t>(max_depth_), "{}: invalid JSON: nested deeper than {} levels",
            source_, max_depth_);
    open_.push_back({std::move(value), {}, {}});
    return true;
  }

  bool close() {
    ordered_json value = std::move(open_.back().value);
    open_.pop_back();
    return add(std::move(value));
  }

  std::string_view source_;
  int max_depth_;
  std::vector<Open> open_;
  ordered_json root_;
};

}  // namespace

ordered_json parse_json(std::string_view text, std::string_view source, JsonLimits limits) {
  require(text.size() <= limits.bytes, "{}: invalid JSON: expected at most {} bytes, found {}", source,
          limits.bytes, text.size());
  Builder builder(source, limits.depth);
  const bool complete = ordered_json::sax_parse(text, &builder);
  require(complete, "{}: invalid JSON", source);
  return builder.take();
}

double decimal(float value) {
  std::array<char, 64> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  double out = static_cast<double>(value);
  std::from_chars(text.data(), end, out);
  return out;
}

ordered_json read_json_file(const std::filesystem::path& path, JsonLimits limits) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  return parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string(), limits);
}

}  // namespace atom
