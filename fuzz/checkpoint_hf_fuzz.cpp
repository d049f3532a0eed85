// Opens bytes as a Hugging Face directory and reads everything that it says it has. The input is the files'
// bytes, with the line "====" between them: config.json, model.safetensors.index.json (empty: there is none),
// a.safetensors (without an index model.safetensors), b.safetensors. Only atom::Error may come out.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "checkpoint/checkpoint.h"

namespace {

namespace fs = std::filesystem;

/// Larger tensors only cost time.
constexpr uint64_t kMaxTensorBytes = 1 << 16;

/// A folder of this process's own, taken away at its end.
class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "atom-fuzz-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~Folder() {
    std::error_code error;
    fs::remove_all(path_, error);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

template <class Action>
void allow_error(const Action& action) {
  try {
    action();
  } catch (const atom::Error&) {
  }
}

void read_all(const atom::Checkpoint& checkpoint) {
  (void)checkpoint.config().dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  for (const std::string& name : checkpoint.names()) {
    const atom::TensorInfo info = checkpoint.info(name);
    if (info.bytes > kMaxTensorBytes) continue;
    allow_error([&] {
      const atom::Tensor tensor = checkpoint.load(name);
      if (tensor.dtype != info.dtype || tensor.shape != info.shape) std::abort();
      std::vector<float> values(static_cast<size_t>(tensor.elements()));
      checkpoint.read_float(name, values);
    });
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Folder folder;
  constexpr std::string_view kLine = "\n====\n";
  std::array<std::string_view, 4> files;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  for (std::string_view& file : files) {
    const size_t end = rest.find(kLine);
    file = rest.substr(0, end);
    rest = end == std::string_view::npos ? "" : rest.substr(end + kLine.size());
  }
  const auto write = [&](const char* name, std::string_view content) {
    std::ofstream(folder.path() / name, std::ios::binary) << content;
  };
  for (const auto& entry : fs::directory_iterator(folder.path())) fs::remove(entry);
  write("config.json", files[0]);
  if (!files[1].empty()) write("model.safetensors.index.json", files[1]);
  write(files[1].empty() ? "model.safetensors" : "a.safetensors", files[2]);
  write("b.safetensors", files[3]);
  allow_error([&] { read_all(*atom::Checkpoint::open(folder.path())); });
  return 0;
}
