#include "checkpoint/hf_int4_config.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <string_view>

#include "base/error.h"

namespace atom {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kField = "quantization_config";

/// How it was made, and which kernels should run it: nothing that the weights depend on.
const std::set<std::string_view>& fields_without_meaning() {
  static const std::set<std::string_view> kFields = {"act_group_aware",
                                                     "backend",
                                                     "batch_size",
                                                     "block_name_to_quantize",
                                                     "cache_block_outputs",
                                                     "damp_auto_increment",
                                                     "damp_percent",
                                                     "dataset",
                                                     "disable_exllama",
                                                     "do_fuse",
                                                     "exllama_config",
                                                     "fuse_max_seq_len",
                                                     "lm_head",
                                                     "max_input_length",
                                                     "meta",
                                                     "model_file_base_name",
                                                     "model_name_or_path",
                                                     "model_seqlen",
                                                     "module_name_preceding_first_block",
                                                     "modules_in_block_to_quantize",
                                                     "modules_to_fuse",
                                                     "mse",
                                                     "pad_token_id",
                                                     "quantizer",
                                                     "static_groups",
                                                     "tokenizer",
                                                     "true_sequential",
                                                     "use_cuda_fp16",
                                                     "use_exllama"};
  return kFields;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

class Reader {
 public:
  Reader(const Json& object, const std::string& source) : object_(object), where_(source + ": " + kField) {
    require(object.is_object(), "{}: expected an object, found {}", where_, object.type_name());
  }

  /// The field, or null where it is absent or JSON null.
  const Json* find(const std::string& name) {
    seen_.insert(name);
    const auto it = object_.find(name);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  /// Refuses another value than one of `supported`; nothing where it is absent.
  const Json* one_of(const std::string& name, const std::vector<Json>& supported) {
    const Json* value = find(name);
    if (value == nullptr) return nullptr;
    Json shown = *value;
    if (shown.is_string()) shown = lower(shown.get<std::string>());
    std::string list;
    for (const Json& allowed : supported) {
      if (shown == allowed) return value;
      list += (list.empty() ? "" : " or ") + allowed.dump();
    }
    fail("{}.{}: expected {}, found {}", where_, name, list, printable(dump(*value)));
  }

  /// The text of a field that one_of() lets pass, in lower case.
  std::string text_of(const std::string& name, const std::vector<Json>& supported,
                      const std::string& fallback) {
    const Json* value = one_of(name, supported);
    return value == nullptr ? fallback : lower(value->get<std::string>());
  }

  /// Refuses everything but an absent, null or empty field.
  void refuse(const std::string& name) {
    const Json* value = find(name);
    require(value == nullptr || value->empty(), "{}.{}: not supported, found {}", where_, name,
            value == nullptr ? "" : printable(dump(*value)));
  }

  void refuse_unknown() const {
    for (const auto& [name, value] : object_.items()) {
      require(seen_.count(name) != 0 || fields_without_meaning().count(name) != 0, "{}.{}: unknown field",
              where_, printable(name));
    }
  }

  const std::string& where() const { return where_; }
  static std::string dump(const Json& value) {
    return value.dump(-1, ' ', true, Json::error_handler_t::replace);
  }

 private:
  const Json& object_;
  std::string where_;
  std::set<std::string> seen_;
};

int64_t read_group_size(Reader& reader) {
  constexpr int64_t kDefault = 128, kLargest = 1 << 24;
  const Json* value = reader.find("group_size");
  if (value == nullptr) return kDefault;
  const bool whole = value->is_number_integer();
  const double number = whole ? value->get<double>() : 0;
  require(whole && (number == -1 || (number >= 1 && number <= static_cast<double>(kLargest))),
          "{}.group_size: expected -1 or 1 to {}, found {}", reader.where(), kLargest,
          printable(Reader::dump(*value)));
  return value->get<int64_t>();
}

std::vector<std::string> read_names(Reader& reader, const std::string& name) {
  std::vector<std::string> names;
  const Json* value = reader.find(name);
  if (value == nullptr) return names;
  require(value->is_array(), "{}.{}: expected an array of names, found {}", reader.where(), name,
          value->type_name());
  for (const Json& item : *value) {
    require(item.is_string() && !item.get_ref<const std::string&>().empty(),
            "{}.{}: expected an array of names, found {} in it", reader.where(), name,
            printable(Reader::dump(item)));
    names.push_back(item.get<std::string>());
  }
  return names;
}

}  // namespace

bool HfInt4Config::is_in(const Json& config) {
  const auto field = config.find(kField);
  if (field == config.end() || !field->is_object()) return false;
  const auto method = field->find("quant_method");
  return method != field->end() && (*method == "gptq" || *method == "awq");
}

HfInt4Config HfInt4Config::from_json(const Json& json, const std::string& source) {
  Reader reader(json.at(kField), source);
  HfInt4Config config;
  const bool awq = reader.text_of("quant_method", {"gptq", "awq"}, "") == "awq";
  config.method = awq ? Method::awq : Method::gptq;
  require(awq || reader.find("bits") != nullptr, "{}.bits: missing", reader.where());
  reader.one_of("bits", {4});
  config.group_size = read_group_size(reader);
  // One layout has two names, of which writers use one or both.
  const std::vector<Json> formats = awq ? std::vector<Json>{"gemm"} : std::vector<Json>{"gptq", "gptq_v2"};
  const std::string fallback = awq ? "gemm" : "gptq";
  const std::string format = reader.text_of("format", formats, "");
  const std::string older = reader.text_of(awq ? "version" : "checkpoint_format", formats, "");
  require(format.empty() || older.empty() || format == older,
          "{}.format: expected the same as checkpoint_format, \"{}\", found \"{}\"", reader.where(), older,
          format);
  const std::string layout = !format.empty() ? format : !older.empty() ? older : fallback;
  config.zeros_minus_one = layout == "gptq";
  const Json* symmetric = reader.one_of("sym", {true, false});
  config.symmetric = !awq && symmetric != nullptr && symmetric->get<bool>();
  config.modules_to_not_convert = read_names(reader, "modules_to_not_convert");
  reader.one_of("zero_point", {true});
  reader.one_of("pack_dtype", {"int32"});
  reader.one_of("is_marlin_format", {false});
  const Json* order =
      reader.one_of("desc_act", awq ? std::vector<Json>{false} : std::vector<Json>{false, true});
  config.own_order = order != nullptr && *order == true;
  if (awq) reader.one_of("checkpoint_format", {"gemm"});
  if (const Json* backend = reader.find("backend"); backend != nullptr && awq) {
    require(*backend != "llm-awq", "{}.backend: the layout of \"llm-awq\" is not supported", reader.where());
  }
  for (const char* name : {"dynamic", "adapter", "rotation"}) reader.refuse(name);
  reader.refuse_unknown();
  return config;
}

}  // namespace atom
