// atom bench fused: what a decoder layer does between its linear layers and attention; op by op, and as the
// chain of a layer.

#include <memory>

#include "bench.h"
#include "operands.h"
#include "report.h"
#include "shapes.h"

namespace atom::cli {
namespace {

constexpr int64_t kMaxTokens = 16384;
constexpr int64_t kVocabulary = 32000;
constexpr int64_t kBlockSize = 16;
/// Results rotate over fewer copies than inputs: writing is what takes their time, not where to.
constexpr int64_t kResults = 4;

struct Options {
  BenchOptions bench;
  std::vector<std::string> models;
  std::vector<int64_t> tokens;
};

/// Floats that rotate.
struct Rows {
  Buffer<float> data;
  int64_t tokens = 0, width = 0, copies = 1;

  Rows() = default;
  Rows(const DeviceContext& device, int64_t n_tokens, int64_t n_width, int64_t n_copies)
      : data(random_buffer<float>(device, n_tokens * n_width * n_copies, DType::f32)),
        tokens(n_tokens),
        width(n_width),
        copies(n_copies) {}
  MatrixView<float> view(int64_t copy) {
    return {data.data() + copy % copies * tokens * width, tokens, width};
  }
};

/// Operands of the row-wise ops for one width.
struct RowProblem {
  Rows in, out;
  Buffer<float> weight;
  Buffer<int32_t> permutation;
  std::vector<QuantizedActivations> quantized;

  /// Inputs are in_width wide, results `width`.
  RowProblem(const DeviceContext& device, int64_t tokens, int64_t in_width, int64_t width)
      : in(device, tokens, in_width, cold_copies(device, 4.0 * static_cast<double>(tokens * in_width))),
        out(device, tokens, width, kResults),
        weight(random_buffer<float>(device, width, DType::f32, 0.1f, 1.0f)),
        permutation(Buffer<int32_t>::copy_of(random_permutation(Random(1), width), device.memory)) {
    const ActivationSpec spec{{width, default_outliers(width), 128, OutlierType::int8, true}, 4, 0.9f};
    for (int64_t i = 0; i < kResults; ++i) {
      quantized.emplace_back(device.memory);
      quantized.back().resize(tokens, spec);
    }
  }
  QuantizedActivations* result(int64_t copy) { return &quantized[static_cast<size_t>(copy % kResults)]; }
  /// Bytes of quantized results, scales included.
  double quantized_bytes() const {
    const QuantizedActivations& x = quantized.front();
    const int64_t scales = x.is_blocked() ? 2 : x.scale_stride() + 1;
    return static_cast<double>(in.tokens) * static_cast<double>(x.layout().k + 4 * scales);
  }
  double float_bytes(const Rows& rows) const { return 4.0 * static_cast<double>(rows.tokens * rows.width); }
};

/// One op as a measurement; `make(copy)` gives its arguments.
template <class Make>
Measured measured(const DeviceContext& device, std::string name, double bytes, int64_t copies, Make make) {
  Measured m;
  m.name = std::move(name);
  m.implementation = select(device, make(0)).name;
  m.bytes = bytes;
  m.copies = copies;
  m.launch = [device, make](int64_t copy) { run(device, make(copy)); };
  return m;
}

/// `first`, then `second`, as one measurement of the same work as `fused`.
Measured unfused(const Measured& fused, const Measured& first, const Measured& second) {
  Measured m = fused;
  m.name = "unfused";
  m.implementation = first.name + ", " + second.name;
  m.launch = [first, second](int64_t copy) {
    first.launch(copy);
    second.launch(copy);
  };
  return m;
}

using Problems = std::vector<std::pair<std::string, std::vector<Measured>>>;

void add_norms(Problems& all, const DeviceContext& device, const ModelShape& model, int64_t tokens) {
  const auto p = std::make_shared<RowProblem>(device, tokens, model.config.hidden, model.config.hidden);
  const double in = p->float_bytes(p->in), out = p->float_bytes(p->out), quantized = p->quantized_bytes();
  const int64_t copies = p->in.copies;
  const auto norm = measured(device, "rms_norm", in + out, copies, [p](int64_t c) {
    return RmsNorm{p->in.view(c), p->weight.data(), 1e-5f, p->out.view(c)};
  });
  const auto fused = measured(device, "rms_norm_quantize", in + quantized, copies, [p](int64_t c) {
    return RmsNormQuantize{p->in.view(c), p->weight.data(), 1e-5f, p->permutation.data(), p->result(c)};
  });
  const auto quantize_result = measured(device, "reorder_quantize", out + quantized, copies, [p](int64_t c) {
    return ReorderQuantize{p->out.view(c), p->permutation.data(), p->result(c)};
  });
  const auto quantize = measured(device, "reorder_quantize", in + quantized, copies, [p](int64_t c) {
    return ReorderQuantize{p->in.view(c), p->permutation.data(), p->result(c)};
  });
  all.push_back({"rms_norm", {norm}});
  all.push_back({"rms_norm_quantize", {fused, unfused(fused, norm, quantize_result)}});
  all.push_back({"reorder_quantize", {quantize}});
}

void add_silu(Problems& all, const DeviceContext& device, const ModelShape& model, int64_t tokens) {
  const auto p =
      std::make_shared<RowProblem>(device, tokens, 2 * model.config.intermediate, model.config.intermediate);
  const double in = p->float_bytes(p->in), out = p->float_bytes(p->out), quantized = p->quantized_bytes();
  const int64_t copies = p->in.copies;
  const auto silu = measured(device, "silu_mul", in + out, copies, [p](int64_t c) {
    return SiluMul{p->in.view(c), p->out.view(c)};
  });
  const auto fused = measured(device, "silu_mul_quantize", in + quantized, copies, [p](int64_t c) {
    return SiluMulQuantize{p->in.view(c), p->result(c)};
  });
  const auto quantize = measured(device, "reorder_quantize", out + quantized, copies, [p](int64_t c) {
    return ReorderQuantize{p->out.view(c), nullptr, p->result(c)};
  });
  all.push_back({"silu_mul", {silu}});
  all.push_back({"silu_mul_quantize", {fused, unfused(fused, silu, quantize)}});
}

/// RoPE and append to a cache, in which every token has a page of its own.
struct RopeProblem {
  Rows q, k, v;
  Buffer<float> cos, sin;
  Buffer<int32_t> positions;
  Buffer<int64_t> slots;
  Buffer<std::byte> keys, values;
  Buffer<uint16_t> key_params, value_params;
  KvLayerView cache;

  RopeProblem(const DeviceContext& device, const ModelShape& model, int64_t tokens, KvFormat format) {
    const int64_t kv = model.config.n_kv_heads * model.config.head_dim,
                  width = model.config.n_heads * model.config.head_dim;
    const int64_t copies = cold_copies(device, 4.0 * static_cast<double>(tokens * (width + 2 * kv)));
    q = Rows(device, tokens, width, copies);
    k = Rows(device, tokens, kv, copies);
    v = Rows(device, tokens, kv, copies);
    // Rows are turned again and again: an angle whose cosine is 1 neither grows nor shrinks them.
    cos = random_buffer<float>(device, tokens * model.config.head_dim / 2, DType::f32, 0.0f, 1.0f);
    sin = random_buffer<float>(device, tokens * model.config.head_dim / 2, DType::f32, 0.0f, 0.0f);
    std::vector<int32_t> position(static_cast<size_t>(tokens));
    std::vector<int64_t> slot(position.size());
    for (size_t i = 0; i < position.size(); ++i) {
      position[i] = static_cast<int32_t>(i);
      slot[i] = static_cast<int64_t>(i) * kBlockSize + static_cast<int64_t>(i) % kBlockSize;
    }
    positions = Buffer<int32_t>::copy_of(position, device.memory);
    slots = Buffer<int64_t>::copy_of(slot, device.memory);
    cache = {format, tokens, kBlockSize, model.config.n_kv_heads, model.config.head_dim};
    const auto rows = static_cast<size_t>(tokens * model.config.n_kv_heads * kBlockSize);
    keys = Buffer<std::byte>(rows * static_cast<size_t>(cache.row_bytes()), device.memory);
    values = Buffer<std::byte>(keys.size(), device.memory);
    cache.keys = keys.data();
    cache.values = values.data();
    if (!is_quantized(format)) return;
    key_params = Buffer<uint16_t>(2 * rows, device.memory);
    value_params = Buffer<uint16_t>(2 * rows, device.memory);
    cache.key_params = key_params.data();
    cache.value_params = value_params.data();
  }

  RopeAppend op(int64_t copy, bool rotate) {
    return {q.view(copy),
            k.view(copy),
            v.view(copy),
            std::as_const(positions).span(),
            std::as_const(slots).span(),
            cos.data(),
            sin.data(),
            rotate,
            cache};
  }
  double bytes() const {
    const double row = static_cast<double>(cache.row_bytes() + (is_quantized(cache.format) ? 4 : 0));
    return static_cast<double>(q.tokens) *
           (8.0 * static_cast<double>(q.width) + 8.0 * static_cast<double>(k.width) +
            2 * static_cast<double>(cache.n_kv_heads) * row);
  }
};

void add_rope(Problems& all, const DeviceContext& device, const ModelShape& model, int64_t tokens) {
  for (const KvFormat format : {KvFormat::f16, KvFormat::int8, KvFormat::int4}) {
    const auto p = std::make_shared<RopeProblem>(device, model, tokens, format);
    for (const bool rotate : {false, true}) {
      if (rotate && format != KvFormat::int4) continue;
      const auto name = fmt::format("rope_append_{}{}", name_of(format), rotate ? "_rotated" : "");
      all.push_back({name, {measured(device, name, p->bytes(), p->q.copies, [p, rotate](int64_t c) {
                       return p->op(c, rotate);
                     })}});
    }
  }
}

/// What a decoder layer runs between its linear layers and attention, one after the other.
void add_layer(Problems& all, const DeviceContext& device, const ModelShape& model, int64_t tokens) {
  struct Layer {
    RowProblem hidden, mlp;
    RopeProblem rope;
  };
  const auto p = std::make_shared<Layer>(
      RowProblem(device, tokens, model.config.hidden, model.config.hidden),
      RowProblem(device, tokens, 2 * model.config.intermediate, model.config.intermediate),
      RopeProblem(device, model, tokens, KvFormat::int4));
  Measured m;
  m.name = "layer";
  m.implementation = "norm, rope, reorder, norm, silu";
  m.bytes = 3 * (p->hidden.float_bytes(p->hidden.in) + p->hidden.quantized_bytes()) + p->rope.bytes() +
            p->mlp.float_bytes(p->mlp.in) + p->mlp.quantized_bytes();
  m.copies = std::max({p->hidden.in.copies, p->mlp.in.copies, p->rope.q.copies});
  m.launch = [device, p](int64_t copy) {
    RowProblem& hidden = p->hidden;
    const RmsNormQuantize norm{hidden.in.view(copy), hidden.weight.data(), 1e-5f, hidden.permutation.data(),
                               hidden.result(copy)};
    run(device, norm);
    run(device, p->rope.op(copy, false));
    run(device, ReorderQuantize{hidden.in.view(copy), hidden.permutation.data(), hidden.result(copy)});
    run(device, norm);
    run(device, SiluMulQuantize{p->mlp.in.view(copy), p->mlp.result(copy)});
  };
  all.push_back({"layer", {m}});
}

void add_ends(Problems& all, const DeviceContext& device, const ModelShape& model, int64_t tokens) {
  struct Ends {
    Rows logits, out;
    Buffer<uint16_t> table;
    Buffer<int32_t> ids, drawn;
    Buffer<double> sums;
    Buffer<SampleParams> params;
  };
  const auto p = std::make_shared<Ends>();
  const double logit_bytes = 4.0 * static_cast<double>(tokens * kVocabulary);
  p->logits = Rows(device, tokens, kVocabulary, cold_copies(device, logit_bytes));
  p->out = Rows(device, tokens, model.config.hidden, kResults);
  p->table = random_buffer<uint16_t>(device, kVocabulary * model.config.hidden, DType::f16);
  const double row = 6.0 * static_cast<double>(tokens * model.config.hidden);
  const int64_t copies = cold_copies(device, row);
  std::vector<int32_t> ids(static_cast<size_t>(tokens * copies));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 7919 % kVocabulary);
  p->ids = Buffer<int32_t>::copy_of(ids, device.memory);
  p->sums = Buffer<double>(static_cast<size_t>(tokens), device.memory);
  all.push_back({"embedding", {measured(device, "embedding", row, copies, [p, tokens](int64_t c) {
                   const auto these = std::as_const(p->ids).span().subspan(static_cast<size_t>(c * tokens),
                                                                           static_cast<size_t>(tokens));
                   return EmbeddingLookup{these, DType::f16, p->table.data(), p->out.view(c)};
                 })}});
  all.push_back(
      {"log_sum_exp", {measured(device, "log_sum_exp", logit_bytes, p->logits.copies, [p](int64_t c) {
         return LogSumExp{p->logits.view(c), p->sums.span()};
       })}});
  std::vector<SampleParams> params;
  for (int64_t t = 0; t < tokens; ++t) {
    params.push_back(
        {.temperature = 0.7f, .top_p = 0.9f, .random = random_word(1, static_cast<uint64_t>(t))});
  }
  p->params = Buffer<SampleParams>::copy_of(params, device.memory);
  p->drawn = Buffer<int32_t>(static_cast<size_t>(tokens), device.memory);
  all.push_back({"sample", {measured(device, "sample", logit_bytes, p->logits.copies, [p](int64_t c) {
                   return Sample{p->logits.view(c), std::as_const(p->params).span(), p->drawn.span()};
                 })}});
}

void run_fused(Options options) {
  options.bench.output.apply();
  std::vector<ModelShape> models = model_shapes(options.models);
  const Device device(options.bench.device);
  device.announce();
  const DeviceContext& context = device.context();
  const bool gpu = context.cuda != nullptr;
  if (models.empty()) models.push_back(model_shape(default_model(context)));
  if (options.tokens.empty()) {
    options.tokens =
        gpu ? std::vector<int64_t>{1, 16, 64, 256, 1024, 4096} : std::vector<int64_t>{1, 64, 512};
  }
  Report report(options.bench, device, "fused", "copy", {"unfused"});
  std::vector<Panel> panels;
  for (const ModelShape& model : models) {
    Panel panel{model.name + ": one kernel instead of two", {}};
    for (const int64_t tokens : options.tokens) {
      Problems problems;
      add_norms(problems, context, model, tokens);
      add_silu(problems, context, model, tokens);
      add_rope(problems, context, model, tokens);
      add_layer(problems, context, model, tokens);
      add_ends(problems, context, model, tokens);
      for (auto& [name, work] : problems) {
        const auto timed = measure(context, std::move(work), options.bench.seconds);
        report.add({{"model", model.name}, {"op", name}, {"tokens", tokens}}, timed);
        add_points(panel, static_cast<double>(tokens), timed, "unfused");
      }
    }
    std::erase_if(panel.curves, [](const Curve& curve) { return curve.name == "unfused"; });
    panels.push_back(std::move(panel));
  }
  if (!options.bench.plot.empty())
    write_plot(options.bench.plot, "tokens", "speedup over separate kernels", panels);
  report.finish();
}

}  // namespace

void add_bench_fused(CLI::App& bench, Command& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* command = bench.add_subcommand("fused", "Norms, quantization, SiLU, RoPE, embedding, sampling");
  command->footer(
      "`bytes` are all that have to be read and written once; shares of bandwidth refer to copying. Where an "
      "op is "
      "two in one, `unfused` is the two.\n\n"
      "  atom bench fused --model llama-2-7b --tokens 16,4096");
  command->add_option("--model", options->models, "Widths of these models: " + model_names())->delimiter(',');
  command->add_option("--tokens", options->tokens, "Numbers of tokens")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, kMaxTokens));
  options->bench.add_to(*command);
  command->callback([options, &chosen] { chosen = [options] { run_fused(*options); }; });
}

}  // namespace atom::cli
