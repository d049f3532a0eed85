#include "common.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>
#include <thread>

#include "base/interrupt.h"
#include "base/log.h"
#include "checkpoint/random_checkpoint.h"
#include "kernels/cuda.h"
#include "op_choices.h"

namespace atom::cli {
namespace {

/// Beyond this, threads of one process only get in each other's way.
constexpr int kMaxThreads = 1024;

int thread_count(int asked) {
  if (asked > 0) return asked;
  const unsigned cores = std::thread::hardware_concurrency();
  return cores == 0 ? 1 : static_cast<int>(cores);
}

}  // namespace

void OutputOptions::add_to(CLI::App& command) {
  command.add_flag("--json", json,
                   "Print one JSON object on standard output, everything else on standard error");
  command
      .add_option("--log-level", log_level,
                  "What to say on standard error: trace, debug, info, warn, error, off")
      ->capture_default_str();
}

void OutputOptions::apply() const {
  init_log(log_level);
}

void DeviceOptions::add_to(CLI::App& command, bool with_fast) {
  command.add_option("--threads", threads, "Threads to compute with (default: one a core)")
      ->check(CLI::Range(1, kMaxThreads));
  command.add_option(
      "--isa", isa,
      "Instruction set to use at most: reference, avx2, avx512, avx512vnni (default: the best that this "
      "processor has)");
  command.add_option(
      "--device", device,
      "cpu, or cuda[:N] in builds with CUDA (default: the first GPU, where there is one and no --isa)");
  if (!with_fast) return;
  command.add_flag(
      "--fast", fast,
      "On a GPU: attention in FP16 on tensor cores and dense products by cuBLAS, instead of kernels that "
      "give the CPU's results to the bit");
}

namespace {

/// The number of the GPU that `--device` names, or that is taken where nothing else is asked for; none for
/// the CPU. Throws UsageError.
std::optional<int> gpu_index(const DeviceOptions& options) {
  const std::string& device = options.device;
  if (device.empty()) {
    return options.isa.empty() ? first_cuda_device() : std::nullopt;
  }
  if (device == "cpu") return std::nullopt;
  if (!options.isa.empty()) throw UsageError("--isa is of the CPU's kernels: it needs --device cpu");
  if (device == "cuda") return 0;
  constexpr std::string_view kPrefix = "cuda:";
  if (device.rfind(kPrefix, 0) == 0) {
    int index = 0;
    const char* end = device.data() + device.size();
    const auto [stop, error] = std::from_chars(device.data() + kPrefix.size(), end, index);
    if (error == std::errc() && stop == end && index >= 0) return index;
  }
  throw UsageError(fmt::format("--device: expected cpu or cuda[:N], found '{}'", printable(device)));
}

}  // namespace

Device::Device(const DeviceOptions& options) : pool_(thread_count(options.threads)) {
  context_.pool = &pool_;
  context_.isa = options.isa.empty() ? detect_cpu_isa() : parse_cpu_isa(options.isa);
  if (const std::optional<int> index = gpu_index(options)) {
    CudaHandle gpu = open_cuda(*index);
    gpu_ = std::move(gpu.device);
    context_.cuda = gpu_.get();
    context_.memory = gpu.memory;
    context_.exact = !options.fast;
    description_ = fmt::format("cuda:{} ({})", *index, gpu.description);
    return;
  }
  if (options.fast) {
    throw UsageError(options.isa.empty() ? "--fast is of the GPU's kernels: it needs a GPU"
                                         : "--fast is of the GPU's kernels, and --isa chooses the CPU");
  }
  description_ = "cpu";
}

void Device::announce() const {
  if (gpu_) {
    spdlog::info("{}, {} kernels", description_, context_.exact ? "exact" : "fast");
  } else {
    spdlog::info("cpu with {} ({} thread{})", name_of(context_.isa), pool_.size(),
                 pool_.size() == 1 ? "" : "s");
  }
}

namespace {

CLI::Option* add_optional_model_argument(CLI::App& command, std::filesystem::path& model) {
  return command.add_option(
      "MODEL", model,
      "A GGUF file, a Hugging Face directory (config.json, model.safetensors, tokenizer.json), or a packed "
      "Atom directory");
}

}  // namespace

void add_model_argument(CLI::App& command, std::filesystem::path& model) {
  add_optional_model_argument(command, model)->required();
}

void ModelSource::add_to(CLI::App& command) {
  add_optional_model_argument(command, model);
  command.add_option("--random", random,
                     fmt::format("In place of MODEL: random weights of a well-known shape ({})",
                                 fmt::join(RandomCheckpoint::shapes(), ", ")));
}

void ModelSource::check() const {
  if (is_random() && !model.empty()) throw UsageError("--random makes a model of its own: leave out MODEL");
  if (!is_random() && model.empty()) throw UsageError("MODEL is required, or --random in its place");
  const std::vector<std::string> shapes = RandomCheckpoint::shapes();
  if (is_random() && std::find(shapes.begin(), shapes.end(), random) == shapes.end()) {
    throw UsageError(
        fmt::format("--random: unknown shape '{}' ({})", printable(random), fmt::join(shapes, ", ")));
  }
}

std::unique_ptr<Checkpoint> ModelSource::open(const Device& device, uint64_t seed) const {
  check();
  if (!is_random()) return Checkpoint::open(model);
  return std::make_unique<RandomCheckpoint>(random, seed, device.context().pool);
}

void add_kv_cache_option(CLI::App& command, std::optional<KvFormat>& format) {
  command.add_option_function<std::string>(
      "--kv-cache", [&format](const std::string& name) { format = parse_kv_format(name); },
      "Format of the KV cache: f32, f16, int8, int4 (default: what the checkpoint was made for; f16 for full "
      "precision)");
}

std::unique_ptr<Model> load_model(const Checkpoint& checkpoint, const Device& device) {
  auto model = Model::load(checkpoint, device.context());
  throw_if_interrupted();
  device.announce();
  std::map<std::string, int> kernels, slow;
  for (const auto& [name, info] : model->linear_infos()) {
    if (!info.reason.empty()) ++slow[fmt::format("{}: {}", info.kernel, info.reason)];
    ++kernels[fmt::format("{} {} by {}", name == "lm_head" ? "lm_head" : "linear", info.kind, info.kernel)];
  }
  std::string list;
  for (const auto& [kernel, count] : kernels) {
    list +=
        fmt::format("{}{}{}", list.empty() ? "" : ", ", kernel, count > 1 ? fmt::format(" x{}", count) : "");
  }
  spdlog::info("{}: {:.1f} M weights, {:.1f} MB; {}", checkpoint.path().filename().string(),
               static_cast<double>(model->weight_count()) / 1e6,
               static_cast<double>(model->weight_bytes()) / 1e6, list);
  for (const auto& [kernel, count] : slow) {
    spdlog::warn("{} linear layers run on the slow kernel {}", count, kernel);
  }
  for (const OpChoice& choice : op_choices(*model)) {
    if (!choice.slow_reason.empty()) {
      spdlog::warn("{} runs on the slow kernel {}: {}", choice.op, choice.implementation, choice.slow_reason);
    }
    const bool wanted = device.context().cuda == nullptr && device.context().isa == CpuIsa::reference;
    if (choice.implementation != "reference" || choice.only || wanted) continue;
    spdlog::warn("{} runs on the slow kernel reference: no other has these shapes", choice.op);
  }
  return model;
}

text::Tokenizer load_tokenizer(const Checkpoint& checkpoint) {
  return text::Tokenizer::from_json(nlohmann::json(checkpoint.tokenizer_json()),
                                    checkpoint.path().string() + ": tokenizer");
}

void print_error(std::string message) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  while (!message.empty() && message.back() == ' ') message.pop_back();
  // Paths and values may hold bytes that a terminal would act on. Not fmt::print, which throws when standard
  // error cannot be written.
  std::fputs(("error: " + printable(message, message.size()) + "\n").c_str(), stderr);
}

void print(std::string_view text) {
  const bool written =
      std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  require(written, "standard output: cannot write: {}", std::strerror(errno));
}

void print_json(const Json& json) {
  print(json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

std::string read_standard_input(size_t limit) {
  std::string text;
  char buffer[1 << 16];
  while (const size_t count = std::fread(buffer, 1, sizeof(buffer), stdin)) {
    text.append(buffer, count);
    require(text.size() <= limit, "standard input: more than {} bytes", limit);
  }
  require(std::ferror(stdin) == 0, "standard input: cannot read: {}", std::strerror(errno));
  return text;
}

}  // namespace atom::cli
