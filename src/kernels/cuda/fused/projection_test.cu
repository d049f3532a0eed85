#include "kernels/cuda/fused/fused_testing.h"

namespace atom::cuda {
namespace {

using namespace fused_test;

TEST(CudaProjection, AddBiasAndHeadNormEqualTheReference) {
  ATOM_NEEDS_GPU();
  Random random(31);
  for (const Kind kind : kKinds) {
    for (const int64_t head_dim : {2, 6, 16, 64, 80, 128, 300}) {
      for (const int64_t tokens : {1, 37}) {
        SCOPED_TRACE(testing::Message() << "head_dim " << head_dim << ", tokens " << tokens << ", kind "
                                        << static_cast<int>(kind));
        const int64_t cols = 3 * head_dim;
        Matrix<float> expected = random_matrix(random, tokens, cols + 5, kind);
        const MatrixView<float> part = expected.view().col_range(0, cols);
        const Matrix<float> bias = random_matrix(random, 1, cols, kind);
        const Matrix<float> weight = random_matrix(random, 1, head_dim);
        DeviceArray<float> x(to_vector(expected)), device_bias(to_vector(bias)),
            device_weight(to_vector(weight));
        const MutableMatrix view{x.data(), DType::f32, tokens, cols, cols + 5};
        add_bias({view, device_bias.data()}, nullptr);
        run_reference(AddBias{part, bias.data()});
        EXPECT_TRUE(same_floats(x.read().data(), expected.data(), tokens * (cols + 5)));
        head_norm({view, head_dim, device_weight.data(), 1e-6f}, nullptr);
        run_reference(HeadNorm{part, head_dim, weight.data(), 1e-6f});
        EXPECT_TRUE(same_floats(x.read().data(), expected.data(), tokens * (cols + 5)));
      }
    }
  }
}

}  // namespace
}  // namespace atom::cuda
