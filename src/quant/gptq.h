#pragma once

#include <string>
#include <vector>

#include "model/linear.h"
#include "quant/hessian.h"
#include "quant/rounding.h"

namespace atom {

/// What GPTQ needs of a Hessian: the upper Cholesky factor of its damped inverse.
class GptqFactor {
 public:
  /// Rows and columns of `hessian` are taken in the order of `permutation`, the layout's. `damping` times its
  /// mean diagonal is added to the diagonal; channels that never fired get a diagonal of one. Raises the
  /// damping tenfold, with a warning, while the matrix is not positive definite; throws Error naming `name`
  /// when that does not help.
  GptqFactor(const DeviceContext& device, const Hessian& hessian, const std::vector<int32_t>& permutation,
             float damping, const std::string& name);

  /// Row-major [k, k], upper triangle: H^-1 = Uᵀ U.
  MatrixView<const float> upper() const { return upper_.view(); }

 private:
  Matrix<float> upper_;
};

/// GPTQ (Frantar et al. 2022, arXiv 2210.17323; paper section 4.5): quantizes `weight` [n, k], columns in the
/// layout's order, column by column, and carries each column's error into the columns still to come, the INT8
/// outliers included. Works in blocks of `block_size` columns, and leaves in `weight` the values as they will
/// be read back. `weight` lies in the device's memory, the result in the host's.
LowBitStorage gptq(const DeviceContext& device, MatrixView<float> weight, const ChannelLayout& layout,
                   const GptqFactor& factor, const ScaleChooser& chooser, int64_t block_size);

}  // namespace atom
