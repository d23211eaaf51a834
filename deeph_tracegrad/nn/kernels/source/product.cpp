// The channel matrices of the tensor product with Y(bond), from its weights (nn/tensor_product.py).
#include "layout.hpp"

namespace {

// All paths from one irrep of one input to one irrep of the output.
struct PathGroup {
  int64_t rows, columns, paths, copies, weights, scales, orders, coefficients;
  const int64_t* bond;     // for each |m|: where its block begins in the matrices
  const int64_t* on_site;  // the same for on-site edges; -1 without a path l2 = 0
  const int64_t* stride;   // for each |m|: from one row of the matrix to the next
  const int64_t* apart;    // for each |m|: from the first copy's block to the second's, the other atom's
  const int64_t* sign;     // for each |m|: of these channels in a bond's other frame; see bonds.hpp

  explicit PathGroup(Plan& plan)
      : rows(plan.number()), columns(plan.number()), paths(plan.number()), copies(plan.number()),
        weights(plan.number()), scales(plan.number()), orders(plan.number()), coefficients(plan.number()),
        bond(plan.numbers(orders)), on_site(plan.numbers(orders)), stride(plan.numbers(orders)),
        apart(plan.numbers(orders)), sign(plan.numbers(orders)) {}
};

// table: for each group (|m|, p) coefficients, then the one of the path l2 = 0 on on-site edges.
// Of two atoms' matrices A and B the results are A + B sign and A - B sign; on site A + B.
template <class T>
void assemble(const int64_t* numbers, const T* table, const T* weight, const T* scale, T* matrices) {
  Plan plan(numbers);
  for (int64_t left = plan.number(); left > 0; --left) {
    const PathGroup group(plan);
    const int64_t each = group.rows / group.copies;
    const T* coefficients = table + group.coefficients;
    const T on_site = coefficients[group.orders * group.paths];
    for (int64_t u = 0; u < each; ++u) {
      for (int64_t copy = 0; copy < group.copies; ++copy)
        for (int64_t p = 0; p < group.paths; ++p) {
          const T* w = weight + group.weights + (p * group.rows + copy * each + u) * group.columns;
          const T* s = scale + group.scales + (p * group.copies + copy) * group.columns;
          for (int64_t m = 0; m < group.orders; ++m) {
            const T factor = coefficients[m * group.paths + p];
            T* row = matrices + group.bond[m] + copy * group.apart[m] + u * group.stride[m];
            for (int64_t c = 0; c < group.columns; ++c) row[c] = (p ? row[c] : T(0)) + factor * w[c] * s[c];
            if (p > 0 || group.on_site[m] < 0) continue;
            row = matrices + group.on_site[m] + u * group.stride[m];
            for (int64_t c = 0; c < group.columns; ++c) row[c] = (copy ? row[c] : T(0)) + on_site * w[c] * s[c];
          }
        }
      for (int64_t m = 0; group.copies == 2 && m < group.orders; ++m) {
        T *one = matrices + group.bond[m] + u * group.stride[m], *other = one + group.apart[m];
        for (int64_t c = 0; c < group.columns; ++c) {
          const T first = one[c], second = group.sign[m] * other[c];
          one[c] = first + second;
          other[c] = first - second;
        }
      }
    }
  }
}

// gradient: of the matrices; those of sums and differences become those of the two atoms.
template <class T>
void assemble_backward(const int64_t* numbers, const T* table, const T* weight, const T* scale, T* gradient,
                       T* weight_gradient, T* scale_gradient) {
  Plan plan(numbers);
  std::vector<T> sum;
  for (int64_t left = plan.number(); left > 0; --left) {
    const PathGroup group(plan);
    const int64_t each = group.rows / group.copies;
    const T* coefficients = table + group.coefficients;
    const T on_site = coefficients[group.orders * group.paths];
    sum.resize(group.columns);
    for (int64_t u = 0; u < each; ++u) {
      for (int64_t m = 0; group.copies == 2 && m < group.orders; ++m) {
        T *one = gradient + group.bond[m] + u * group.stride[m], *other = one + group.apart[m];
        for (int64_t c = 0; c < group.columns; ++c) {
          const T of_sum = one[c], of_difference = other[c];
          one[c] = of_sum + of_difference;
          other[c] = group.sign[m] * (of_sum - of_difference);
        }
      }
      for (int64_t copy = 0; copy < group.copies; ++copy)
        for (int64_t p = 0; p < group.paths; ++p) {
          const int64_t at = group.weights + (p * group.rows + copy * each + u) * group.columns;
          const int64_t scale_at = group.scales + (p * group.copies + copy) * group.columns;
          std::fill(sum.begin(), sum.end(), T(0));
          for (int64_t m = 0; m < group.orders; ++m) {
            const T factor = coefficients[m * group.paths + p];
            const T* row = gradient + group.bond[m] + copy * group.apart[m] + u * group.stride[m];
            for (int64_t c = 0; c < group.columns; ++c) sum[c] += factor * row[c];
            if (p > 0 || group.on_site[m] < 0) continue;
            row = gradient + group.on_site[m] + u * group.stride[m];
            for (int64_t c = 0; c < group.columns; ++c) sum[c] += on_site * row[c];
          }
          for (int64_t c = 0; c < group.columns; ++c) {
            weight_gradient[at + c] = sum[c] * scale[scale_at + c];
            scale_gradient[scale_at + c] += sum[c] * weight[at + c];
          }
        }
    }
  }
}

}  // namespace

#define DEFINE(T, NAME)                                                                                              \
  extern "C" void product_forward_##NAME(const int64_t* plan, const T* table, const T* weight, const T* scale,       \
                                         T* matrices) {                                                              \
    assemble<T>(plan, table, weight, scale, matrices);                                                               \
  }                                                                                                                  \
  extern "C" void product_backward_##NAME(const int64_t* plan, const T* table, const T* weight, const T* scale,      \
                                          T* gradient, T* weight_gradient, T* scale_gradient) {                      \
    assemble_backward<T>(plan, table, weight, scale, gradient, weight_gradient, scale_gradient);                     \
  }
DEFINE(float, float32)
DEFINE(double, float64)
