// atom inspect: what is in a checkpoint, and what will run it.

#include <memory>

#include "base/error.h"
#include "checkpoint/json.h"
#include "common.h"
#include "op_choices.h"
#include "weight_size.h"

namespace atom::cli {
namespace {

struct Options {
  OutputOptions output;
  DeviceOptions device;
  ModelSource source;
};

/// "default", or the kind and what matters most of it: "yarn, factor 4, of 32768 tokens".
std::string describe_scaling(const RopeScaling& scaling) {
  std::string text = name_of(scaling.kind);
  if (scaling.factor != 1) text += fmt::format(", factor {}", scaling.factor);
  if (scaling.original_positions > 0) text += fmt::format(", of {} tokens", scaling.original_positions);
  if (scaling.attention_factor != 1)
    text += fmt::format(", attention factor {:.4f}", scaling.attention_factor);
  return text;
}

Json describe_config(const ModelConfig& config) {
  return {{"model_type", config.model_type},
          {"hidden_size", config.hidden},
          {"intermediate_size", config.intermediate},
          {"layers", config.n_layers},
          {"heads", config.n_heads},
          {"kv_heads", config.n_kv_heads},
          {"head_dim", config.head_dim},
          {"vocab_size", config.vocab},
          {"max_positions", config.max_positions},
          {"rope_theta", decimal(config.rope_theta)},
          {"rope_scaling", describe_scaling(config.rope_scaling)},
          {"sliding_window", config.sliding_window > 0 ? Json(config.sliding_window) : Json(nullptr)},
          {"window_layers", config.window_layers()},
          {"qkv_bias", config.qkv_bias},
          {"o_bias", config.o_bias},
          {"mlp_bias", config.mlp_bias},
          {"head_norms", config.head_norms},
          {"rms_norm_eps", decimal(config.rms_norm_eps)},
          {"tied_embeddings", config.tied_embeddings}};
}

Json describe(const Checkpoint& checkpoint, const Model& model, const Device& device) {
  const WeightSize size = weight_size(checkpoint, model);
  Json json;
  json["model"] = checkpoint.path().string();
  json["format"] = model.quantization() ? "packed" : checkpoint.format();
  json["config"] = describe_config(model.config());
  json["quantization"] = model.quantization() ? model.quantization()->to_json() : Json(nullptr);
  json["weights"] = size.weights;
  json["bytes"] = size.file_bytes;
  json["bits_per_weight"] = size.bits_per_weight();
  json["kv_cache"] = name_of(model.kv_format());
  json["kv_cache_bytes_per_token"] = kv_bytes_per_token(model.kv_shape(), model.kv_format());
  json["cpu_features"] = name_of(detect_cpu_isa());
  json["device"] = device.description();
  json["isa"] = name_of(device.context().isa);
  json["threads"] = device.threads();
  for (const OpChoice& choice : op_choices(model)) {
    json["ops"].push_back({{"op", choice.op}, {"implementation", choice.implementation}});
  }
  for (const auto& [name, info] : model.linear_infos()) {
    json["layers"].push_back(
        {{"name", name},
         {"kind", info.kind},
         {"kernel", info.kernel},
         {"reason", info.reason},
         {"weights", info.weights},
         {"bytes", info.bytes},
         {"bits_per_weight", 8.0 * static_cast<double>(info.bytes) / static_cast<double>(info.weights)}});
  }
  return json;
}

std::string scalar(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

/// `json`, an object of scalars and objects, one line a field.
void append_fields(std::string& out, const Json& json, const std::string& indent) {
  for (const auto& [name, value] : json.items()) {
    out += fmt::format("{}{:<{}}{}\n", indent, name, 28 - indent.size(), scalar(value));
  }
}

std::string as_table(const Json& json) {
  std::string out;
  for (const auto& [name, value] : json.items()) {
    if (name == "ops") {
      out += "\nop                          implementation\n";
      for (const Json& op : value) {
        out += fmt::format("{:<28}{}\n", scalar(op["op"]), scalar(op["implementation"]));
      }
    } else if (name == "layers") {
      out +=
          "\nlayer                       kind    kernel          bits/weight       bytes  why not a faster "
          "one\n";
      for (const Json& layer : value) {
        out += fmt::format("{:<28}{:<8}{:<16}{:>11.3f} {:>11}  {}\n", scalar(layer["name"]),
                           scalar(layer["kind"]), scalar(layer["kernel"]),
                           layer["bits_per_weight"].get<double>(), scalar(layer["bytes"]),
                           scalar(layer["reason"]));
      }
    } else if (value.is_object()) {
      out += name + "\n";
      append_fields(out, value, "  ");
    } else if (name == "bits_per_weight") {
      out += fmt::format("{:<28}{:.4f}\n", name, value.get<double>());
    } else if (!value.is_null()) {
      out += fmt::format("{:<28}{}\n", name, scalar(value));
    }
  }
  return out;
}

void run(const Options& options) {
  options.output.apply();
  options.source.check();
  const Device device(options.device);
  const auto checkpoint = options.source.open(device, 0);
  const auto model = Model::outline(*checkpoint, device.context());
  const Json json = describe(*checkpoint, *model, device);
  if (options.output.json) {
    print_json(json);
  } else {
    print(as_table(json));
  }
}

}  // namespace

void add_inspect(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("inspect", "Show what is in a checkpoint and which kernels will run it");
  command->footer(
      "`bytes` is the size of the files that hold the weights; `bits_per_weight` counts everything that is "
      "stored for them (scales, outliers, permutations, norms, embedding). The kernels are those of this "
      "machine, or of the instruction set given by --isa. Of weights in full precision no values are "
      "read.\n\n"
      "  atom inspect packed/\n"
      "  atom inspect packed/ --isa avx2 --json");
  options->source.add_to(*command);
  options->device.add_to(*command);
  options->output.add_to(*command);
  command->callback([options, &chosen] { chosen = [options] { run(*options); }; });
}

}  // namespace atom::cli
