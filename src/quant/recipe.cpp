#include "quant/recipe.h"

#include <cstdlib>

#include "base/error.h"
#include "kernels/integer_scales.h"

namespace atom {
namespace {

constexpr int64_t kPreferredOutliers = 128;

}  // namespace

Recipe Recipe::named(const std::string& name) {
  Recipe recipe;
  recipe.name = name;
  if (name == "atom") return recipe;
  if (name == "atom-w4a8") {
    recipe.activation_bits = 8;
    recipe.activation_clip = 1.0f;
    return recipe;
  }
  recipe.activation_clip = 1.0f;
  recipe.weight_clip = 1.0f;
  recipe.kv_cache_bits = 16;
  recipe.integer_scales = false;
  if (name == "rtn") {
    recipe.group_size = 0;
    recipe.outliers = 0;
    recipe.gptq = false;
    return recipe;
  }
  if (name == "w8a8") {
    recipe.activation_bits = 8;
    recipe.outliers = kAllChannels;
    recipe.gptq = false;
    return recipe;
  }
  if (name == "w4a16") {
    recipe.activation_bits = 16;
    recipe.outliers = 0;
    return recipe;
  }
  throw UsageError(fmt::format("unknown recipe '{}' ({})", printable(name), fmt::join(names(), ", ")));
}

std::vector<std::string> Recipe::names() {
  return {"atom", "atom-w4a8", "rtn", "w8a8", "w4a16"};
}

void Recipe::validate() const {
  const auto one_of = [](const char* what, int value, std::initializer_list<int> allowed) {
    for (const int candidate : allowed) {
      if (value == candidate) return;
    }
    fail("{}: expected one of {}, found {}", what, fmt::join(allowed, ", "), value);
  };
  one_of("activation bits", activation_bits, {4, 8, 16});
  one_of("outlier bits", outlier_bits, {8, 16});
  one_of("KV cache bits", kv_cache_bits, {4, 8, 16});
  one_of("lm_head bits", lm_head_bits, {8, 16});
  require(group_size >= 0 && group_size <= (1 << 20), "group size: expected 0 (a whole row) to {}, found {}",
          1 << 20, group_size);
  require(!outliers || *outliers >= 0, "outliers: expected 0 or more, found {}", outliers.value_or(0));
  require(
      integer_scales != true || (activation_bits != 16 && outlier_bits == 8 && outliers != kAllChannels),
      "integer scales: expected activation bits 4 or 8, outlier bits 8 and channels that are no outliers, "
      "found {}, {} and {}",
      activation_bits, outlier_bits, outliers == kAllChannels ? "none" : "some");
  require(activation_bits != 16 || outliers == 0, "outliers: 16-bit activations have none, expected 0");
  require(activation_clip > 0 && activation_clip <= 1,
          "activation clip: expected a number in (0, 1], found {}", activation_clip);
  require(weight_clip > 0 && weight_clip <= 1, "weight clip: expected a number in (0, 1], found {}",
          weight_clip);
  require(damping > 0 && damping <= 1, "damping: expected a number in (0, 1], found {}", damping);
  require(block_size >= 1 && block_size <= 65536, "block size: expected 1 to 65536, found {}", block_size);
}

bool Recipe::has_integer_scales() const {
  return integer_scales.value_or(group_size > 0 && activation_bits != 16 && outlier_bits == 8 &&
                                 outliers != kAllChannels);
}

bool Recipe::needs_calibration() const {
  return gptq || search_clips || (outliers != 0 && outliers != kAllChannels);
}

int64_t Recipe::outlier_count(int64_t k, const std::string& input) const {
  if (outliers == kAllChannels) return k;
  if (outliers) {
    require(*outliers <= k, "outliers: {} asked for, but {} has {} channels", *outliers, input, k);
    const int64_t normal = k - *outliers;
    // Kernels of quantized activations want whole groups.
    require(activation_bits == 16 || group_size == 0 || normal % group_size == 0,
            "group size {} does not divide the {} normal channels of {} ({} channels less {} outliers)",
            group_size, normal, input, k, *outliers);
    return *outliers;
  }
  // With one scale a row any number would do; the same rule keeps such recipes comparable with the others.
  const int64_t group = group_size > 0 ? group_size : Recipe{}.group_size;
  int64_t best = k % group;
  for (int64_t count = best; count <= k; count += group) {
    if (std::abs(count - kPreferredOutliers) < std::abs(best - kPreferredOutliers)) best = count;
  }
  return best;
}

ChannelLayout Recipe::layout(int64_t k, const std::string& input) const {
  ChannelLayout layout;
  layout.k = k;
  layout.n_outlier = outlier_count(k, input);
  layout.group = group_size > 0 ? group_size : std::max<int64_t>(layout.k_normal(), 1);
  layout.outlier_type = outlier_bits == 8 ? OutlierType::int8 : OutlierType::fp16;
  layout.integer_scales = has_integer_scales() && layout.k_normal() > 0;
  require(
      !layout.integer_scales || integer_scales::fits(layout.k_normal(), layout.n_outlier),
      "integer scales: int32 does not hold the sums of {} normal and {} outlier channels of {}; take FP16 "
      "scales (--scales fp16)",
      layout.k_normal(), layout.n_outlier, input);
  return layout;
}

}  // namespace atom
