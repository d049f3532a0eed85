#pragma once

#include <string>
#include <vector>

#include "model/model.h"

namespace atom::cli {

/// Which implementation of an op a model's steps will take on its device.
struct OpChoice {
  std::string op;
  std::string implementation;
  /// The device has no other.
  bool only = false;
  /// Why it is not a faster one that the device has for other models; empty where it is.
  std::string slow_reason;
};

/// Every op that a decoder of this shape and precision runs, linear layers excepted (see
/// Model::linear_infos).
std::vector<OpChoice> op_choices(const Model& model);

}  // namespace atom::cli
