#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace atom {

/// A piece of work that a benchmark times: an implementation on one problem, with operands of its own.
struct Measured {
  /// What it is: "W4A4".
  std::string name;
  /// The kernel.
  std::string implementation;
  /// The rate of the device that bounds its arithmetic: "f32", "bf16", "fp8", "int8"; empty for none.
  std::string rate;
  /// Bytes that one launch has to read (and write, where the benchmark says so) at least once.
  double bytes = 0;
  /// Multiplications and additions of one launch.
  double operations = 0;
  /// Sets of operands that launches rotate over, so that what they read is not in a cache.
  int64_t copies = 1;
  std::function<void(int64_t copy)> launch;
};

}  // namespace atom
