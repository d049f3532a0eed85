#pragma once

#include <deque>
#include <filesystem>
#include <string>
#include <unordered_map>
#include <vector>

#include <nlohmann/json.hpp>

#include "checkpoint/safetensors.h"

namespace atom {

/// The safetensors files of a model directory: model.safetensors, or those that model.safetensors.index.json
/// distributes the tensors over ("weight_map": {tensor: file}). Index and files must agree: every tensor is
/// in the file that the index names, and in no other.
class SafetensorsShards {
 public:
  /// Maps them. Throws Error naming the file, and the tensor, for what is missing, malformed or
  /// contradictory.
  explicit SafetensorsShards(const std::filesystem::path& directory);

  std::vector<std::filesystem::path> files() const;
  /// In the order of the files' names, and in each of its bytes.
  std::vector<std::string> names() const;
  bool contains(const std::string& name) const { return owners_.count(name) != 0; }
  /// The file that holds the tensor. Throws Error when there is none.
  const SafetensorsFile& file_of(const std::string& name) const;

 private:
  void check_index(const std::string& index, const nlohmann::ordered_json& weight_map) const;

  std::string directory_;
  std::deque<SafetensorsFile> files_;
  std::unordered_map<std::string, const SafetensorsFile*> owners_;
};

}  // namespace atom
