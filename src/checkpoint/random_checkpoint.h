#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/thread_pool.h"
#include "checkpoint/checkpoint.h"

namespace atom {

/// A model of a well-known shape whose weights are random: for measuring speed and memory without the model.
/// F16; matrices about normal with a standard deviation of 0.02, norms around 1. One channel in 128 of every
/// layer input is eight times as large (through norms and rows of v_proj and up_proj), so that there are
/// outliers to be found. There is no tokenizer.
///
/// A value depends on seed, tensor and position alone, and is made when its tensor is loaded, by integer
/// arithmetic and single roundings: the same on every machine, for any number of threads.
class RandomCheckpoint : public Checkpoint {
 public:
  /// `shape` is one of shapes(). `pool`, which may be null, makes the tensors; it must outlive the checkpoint
  /// and have nothing else to do during its calls. Throws UsageError for another word.
  RandomCheckpoint(const std::string& shape, uint64_t seed, ThreadPool* pool);

  /// "llama-2-7b", ...
  static std::vector<std::string> shapes();

  std::string format() const override { return "random"; }
  std::vector<std::filesystem::path> files() const override { return {}; }
  const nlohmann::ordered_json& config() const override { return config_; }
  std::vector<std::string> names() const override;
  bool contains(const std::string& name) const override { return index_.count(name) != 0; }
  TensorInfo info(const std::string& name) const override;
  Tensor load(const std::string& name) const override;
  void read_float(const std::string& name, std::span<float> out) const override;
  bool has_tokenizer() const override { return false; }
  const nlohmann::ordered_json& tokenizer_json() const override;
  const nlohmann::ordered_json& tokenizer_config() const override { return tokenizer_config_; }

 private:
  /// What is random in a tensor.
  enum class Kind { matrix, matrix_with_large_rows, norm };
  struct Entry {
    std::string name;
    std::vector<int64_t> shape;
    Kind kind;
  };

  void add(const std::string& name, std::vector<int64_t> shape, Kind kind);
  const Entry& find(const std::string& name) const;

  uint64_t seed_;
  ThreadPool* pool_;
  /// One loop of the pool at a time.
  mutable std::mutex mutex_;
  nlohmann::ordered_json config_;
  nlohmann::ordered_json tokenizer_config_;
  std::vector<Entry> entries_;
  std::unordered_map<std::string, size_t> index_;
};

}  // namespace atom
