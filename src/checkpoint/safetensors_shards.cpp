#include "checkpoint/safetensors_shards.h"

#include <set>

#include "base/error.h"
#include "checkpoint/json.h"

namespace atom {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

bool has(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

/// The object "weight_map" of an index, whose values are names of files in the same directory.
Json read_weight_map(const fs::path& index) {
  // What a hostile one may take in memory is 25 times its size.
  constexpr JsonLimits kLimits{8'000'000, 8};
  Json document = read_json_file(index, kLimits);
  require(document.is_object(), "{}: expected a JSON object, found {}", index.string(), document.type_name());
  const auto map = document.find("weight_map");
  require(map != document.end() && map->is_object() && !map->empty(),
          "{}: weight_map: expected an object that names a file for each tensor", index.string());
  for (const auto& [tensor, file] : map->get_ref<const Json::object_t&>()) {
    require(file.is_string(), "{}: weight_map: tensor \"{}\": expected the name of a file, found {}",
            index.string(), printable(tensor), file.type_name());
    const std::string& name = file.get_ref<const std::string&>();
    const bool plain =
        name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos && !name.starts_with('.');
    require(
        plain && name.ends_with(".safetensors"),
        "{}: weight_map: tensor \"{}\": expected the name of a .safetensors file in this directory, found "
        "\"{}\"",
        index.string(), printable(tensor), printable(name));
  }
  return std::move(*map);
}

}  // namespace

SafetensorsShards::SafetensorsShards(const fs::path& directory) : directory_(directory.string()) {
  const fs::path single = directory / "model.safetensors";
  const fs::path index = directory / "model.safetensors.index.json";
  Json weight_map;
  if (has(single) || !has(index)) {
    require(has(single), "{}: missing from the model directory", single.string());
    files_.emplace_back(single);
  } else {
    weight_map = read_weight_map(index);
    std::set<std::string> names;
    for (const auto& [tensor, file] : weight_map.get_ref<const Json::object_t&>())
      names.insert(file.get_ref<const std::string&>());
    for (const std::string& name : names) {
      require(has(directory / name), "{}: missing from the model directory; {} names it",
              (directory / name).string(), index.filename().string());
      files_.emplace_back(directory / name);
    }
  }
  for (const SafetensorsFile& file : files_) {
    for (const SafetensorsEntry& entry : file.entries()) {
      const auto [owner, fresh] = owners_.emplace(entry.name, &file);
      require(fresh, "{}: tensor \"{}\" is in {} already", file.name(), printable(entry.name),
              owner->second->name());
    }
  }
  if (!weight_map.is_null()) check_index(index.string(), weight_map);
}

void SafetensorsShards::check_index(const std::string& index, const Json& weight_map) const {
  for (const auto& [tensor, file] : weight_map.get_ref<const Json::object_t&>()) {
    const std::string path = (fs::path(directory_) / file.get_ref<const std::string&>()).string();
    const auto owner = owners_.find(tensor);
    require(owner != owners_.end() && owner->second->name() == path,
            "{}: tensor \"{}\" is missing; {} says that it is there", path, printable(tensor), index);
  }
  if (owners_.size() == weight_map.size()) return;
  std::set<std::string_view> known;
  for (const auto& [tensor, file] : weight_map.get_ref<const Json::object_t&>()) known.insert(tensor);
  for (const SafetensorsFile& file : files_) {
    for (const SafetensorsEntry& entry : file.entries()) {
      require(known.count(entry.name) != 0, "{}: tensor \"{}\" is not in the weight_map of {}", file.name(),
              printable(entry.name), index);
    }
  }
}

std::vector<fs::path> SafetensorsShards::files() const {
  std::vector<fs::path> files;
  for (const SafetensorsFile& file : files_) files.emplace_back(file.name());
  return files;
}

std::vector<std::string> SafetensorsShards::names() const {
  std::vector<std::string> names;
  for (const SafetensorsFile& file : files_) {
    for (const SafetensorsEntry& entry : file.entries()) names.push_back(entry.name);
  }
  return names;
}

const SafetensorsFile& SafetensorsShards::file_of(const std::string& name) const {
  const auto owner = owners_.find(name);
  require(owner != owners_.end(), "{}: tensor \"{}\" is missing", directory_, printable(name));
  return *owner->second;
}

}  // namespace atom
