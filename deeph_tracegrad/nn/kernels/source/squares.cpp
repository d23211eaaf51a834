// The weighted squares of errors of H (training/losses.py): these are the largest arrays, and each pass over them counts.
#include "simd.hpp"

#include <vector>

namespace {

// rows of `columns` numbers; weight_step: `columns`, or 0 if all rows have the same weights
template <class T>
struct Errors {
  const T *prediction, *target, *weight;
  int64_t rows, columns, weight_step;

  Vector<T> difference(int64_t r, int64_t c) const {
    const int64_t at = r * columns + c;
    return load_part(prediction + at, columns - c) - load_part(target + at, columns - c);
  }
  Vector<T> weighted(int64_t r, int64_t c) const {
    return difference(r, c) * load_part(weight + r * weight_step + c, columns - c);
  }
};

// The sum of weight (prediction - target)^2, always in the same order for the same number of threads.
template <class T>
double sum(const Errors<T>& errors, int threads) {
  std::vector<double> parts(threads, 0.0);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread)
    for (int64_t r = errors.rows * thread / threads; r < errors.rows * (thread + 1) / threads; ++r) {
      Vector<T> lanes{};
      for (int64_t c = 0; c < errors.columns; c += kLanes<T>) lanes += errors.weighted(r, c) * errors.difference(r, c);
      for (int k = 0; k < kLanes<T>; ++k) parts[thread] += lanes[k];
    }
  double total = 0.0;
  for (double part : parts) total += part;
  return total;
}

// out = factor weight (prediction - target)
template <class T>
void gradient(const Errors<T>& errors, T factor, T* out, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t r = 0; r < errors.rows; ++r)
    for (int64_t c = 0; c < errors.columns; c += kLanes<T>)
      store_part(out + r * errors.columns + c, factor * errors.weighted(r, c), errors.columns - c);
}

}  // namespace

#define DEFINE(T, NAME)                                                                                                \
  extern "C" void squares_forward_##NAME(const T* prediction, const T* target, const T* weight, int64_t rows,          \
                                         int64_t columns, int64_t weight_step, T* total, int64_t threads) {            \
    *total = sum<T>({prediction, target, weight, rows, columns, weight_step}, threads);                                \
  }                                                                                                                    \
  extern "C" void squares_backward_##NAME(const T* prediction, const T* target, const T* weight, int64_t rows,         \
                                          int64_t columns, int64_t weight_step, const T* factor, T* out,               \
                                          int64_t threads) {                                                           \
    gradient<T>({prediction, target, weight, rows, columns, weight_step}, *factor, out, threads);                      \
  }
DEFINE(float, float32)
DEFINE(double, float64)
