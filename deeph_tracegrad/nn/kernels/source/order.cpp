// Columns in another order (nn/order.py).
#include <cstdint>

namespace {

// out (R, C): column place[c] times sign[c] as column c.
template <class T>
void reorder(const T* features, const int64_t* place, const T* sign, int64_t rows, int64_t columns, T* out, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) out[r * columns + c] = sign[c] * features[r * columns + place[c]];
}

}  // namespace

#define DEFINE(T, NAME)                                                                                                \
  extern "C" void columns_##NAME(const T* features, const int64_t* place, const T* sign, int64_t rows,                \
                                 int64_t columns, T* out, int64_t threads) {                                          \
    reorder<T>(features, place, sign, rows, columns, out, threads);                                                   \
  }
DEFINE(float, float32)
DEFINE(double, float64)
