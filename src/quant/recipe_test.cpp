#include "quant/recipe.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace atom {
namespace {

TEST(Recipe, DefaultOutliersAreNearestTo128LeavingWholeGroups) {
  const Recipe recipe = Recipe::named("atom");
  EXPECT_EQ(recipe.outlier_count(4096, "x"), 128);
  EXPECT_EQ(recipe.outlier_count(11008, "x"), 128);
  EXPECT_EQ(recipe.outlier_count(1536, "x"), 128);
  EXPECT_EQ(recipe.outlier_count(576, "x"), 64);  // 64 and 192 are as near: the smaller
  EXPECT_EQ(recipe.outlier_count(600, "x"), 88);
  EXPECT_EQ(recipe.outlier_count(96, "x"), 96);
  EXPECT_EQ(recipe.outlier_count(128, "x"), 128);
  EXPECT_EQ(recipe.outlier_count(250, "x"), 122);
}

TEST(Recipe, GivenOutliersMustLeaveWholeGroups) {
  Recipe recipe;
  recipe.outliers = 0;
  EXPECT_EQ(recipe.outlier_count(4096, "x"), 0);
  EXPECT_THROW(recipe.outlier_count(576, "x"), Error);
  recipe.outliers = 100;
  EXPECT_THROW(recipe.outlier_count(576, "x"), Error);
  recipe.outliers = 577;
  EXPECT_THROW(recipe.outlier_count(576, "x"), Error);
  recipe.outliers = 576;
  EXPECT_EQ(recipe.outlier_count(576, "x"), 576);
  recipe.outliers = 64;
  recipe.group_size = 100;
  try {
    recipe.outlier_count(576, "model.layers.0.qkv");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("group size 100"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("model.layers.0.qkv"), std::string::npos);
  }
}

TEST(Recipe, WholeRowGroups) {
  const Recipe recipe = Recipe::named("rtn");
  const ChannelLayout layout = recipe.layout(576, "x");
  EXPECT_EQ(layout.n_outlier, 0);
  EXPECT_EQ(layout.group, 576);
  EXPECT_EQ(layout.groups(), 1);
  EXPECT_FALSE(recipe.needs_calibration());
  Recipe outliers;
  outliers.group_size = 0;
  EXPECT_EQ(outliers.outlier_count(576, "x"), 64);
  Recipe all;
  all.outliers = 576;
  EXPECT_EQ(all.layout(576, "x").groups(), 0);
}

TEST(Recipe, Baselines) {
  const Recipe w8a8 = Recipe::named("w8a8");
  EXPECT_EQ(w8a8.layout(576, "x").n_outlier, 576);
  EXPECT_EQ(w8a8.layout(577, "x").groups(), 0);
  EXPECT_FALSE(w8a8.needs_calibration());
  Recipe w4a16 = Recipe::named("w4a16");
  EXPECT_EQ(w4a16.layout(4096, "x").groups(), 32);
  EXPECT_EQ(w4a16.layout(576, "x").groups(), 5);  // the last one is shorter
  EXPECT_TRUE(w4a16.needs_calibration());
  w4a16.outliers = 64;
  EXPECT_THROW(w4a16.validate(), Error);
  w4a16.outliers.reset();
  EXPECT_THROW(w4a16.validate(), Error);
}

TEST(Recipe, ScalesAreIntegerWhereTheyCanBe) {
  EXPECT_TRUE(Recipe::named("atom").layout(4096, "x").integer_scales);
  EXPECT_TRUE(Recipe::named("atom-w4a8").layout(4096, "x").integer_scales);
  for (const char* name : {"rtn", "w8a8", "w4a16"}) {
    EXPECT_FALSE(Recipe::named(name).layout(4096, "x").integer_scales) << name;
  }
  Recipe recipe;
  EXPECT_FALSE(recipe.layout(96, "x").integer_scales);  // every channel is an outlier
  recipe.outlier_bits = 16;
  EXPECT_FALSE(recipe.layout(4096, "x").integer_scales);
  recipe.integer_scales = true;
  EXPECT_THROW(recipe.validate(), Error);
  recipe.outlier_bits = 8;
  recipe.outliers = 1024;
  EXPECT_NO_THROW(recipe.validate());
  EXPECT_THROW(recipe.layout(4096, "x"), Error);  // more than int32 holds
  recipe.integer_scales = false;
  EXPECT_FALSE(recipe.layout(4096, "x").integer_scales);
}

TEST(Recipe, NamesAndRanges) {
  for (const std::string& name : Recipe::names()) EXPECT_NO_THROW(Recipe::named(name).validate());
  EXPECT_THROW(Recipe::named("best"), UsageError);
  const auto rejected = [](auto change) {
    Recipe recipe;
    change(recipe);
    EXPECT_THROW(recipe.validate(), Error);
  };
  rejected([](Recipe& r) { r.activation_bits = 5; });
  rejected([](Recipe& r) { r.outlier_bits = 4; });
  rejected([](Recipe& r) { r.kv_cache_bits = 3; });
  rejected([](Recipe& r) { r.lm_head_bits = 4; });
  rejected([](Recipe& r) { r.group_size = -1; });
  rejected([](Recipe& r) { r.outliers = -1; });
  rejected([](Recipe& r) { r.activation_clip = 0; });
  rejected([](Recipe& r) { r.weight_clip = 1.5f; });
  rejected([](Recipe& r) { r.damping = 0; });
  rejected([](Recipe& r) { r.block_size = 0; });
}

}  // namespace
}  // namespace atom
