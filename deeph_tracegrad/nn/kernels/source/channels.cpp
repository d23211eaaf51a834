// Products of the components of each channel, channels times numbers (nn/channels.py), and columns in another order
// (nn/order.py).
#include "layout.hpp"

namespace {

// out (R, C): for each channel the sum over its components of one times other, both (R, F).
template <class T>
void products(const Layout& layout, const T* one, const T* other, int64_t rows, T* out, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    for (const Group& group : layout.groups)
      for (int64_t c = 0; c < group.channels; c += kLanes<T>) {
        const int64_t count = group.channels - c;
        Vector<T> sum{};
        for (int64_t p = 0; p < group.size(); ++p) {
          const int64_t at = r * layout.dim + group.place[p] + c;
          sum += load_part(one + at, count) * load_part(other + at, count);
        }
        store_part(out + r * layout.channels + group.first + c, sum, count);
      }
  }
}

// out (R, F): features (R, F) times offset + factors (R, C).
template <class T>
void scaled(const Layout& layout, const T* features, const T* factors, int64_t offset, int64_t rows, T* out, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    for (const Group& group : layout.groups)
      for (int64_t c = 0; c < group.channels; c += kLanes<T>) {
        const int64_t count = group.channels - c;
        const Vector<T> factor = load_part(factors + r * layout.channels + group.first + c, count) + T(offset);
        for (int64_t p = 0; p < group.size(); ++p) {
          const int64_t at = r * layout.dim + group.place[p] + c;
          store_part(out + at, load_part(features + at, count) * factor, count);
        }
      }
  }
}

// out (R, C): column place[c] times sign[c] as column c.
template <class T>
void reorder(const T* features, const int64_t* place, const T* sign, int64_t rows, int64_t columns, T* out, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) out[r * columns + c] = sign[c] * features[r * columns + place[c]];
}

}  // namespace

#define DEFINE(T, NAME)                                                                                               \
  extern "C" void channel_products_##NAME(const int64_t* numbers, const T* one, const T* other, int64_t rows, T* out, \
                                          int64_t threads) {                                                          \
    Plan plan(numbers);                                                                                               \
    products<T>(Layout(plan), one, other, rows, out, threads);                                                        \
  }                                                                                                                   \
  extern "C" void channel_scaled_##NAME(const int64_t* numbers, const T* features, const T* factors, int64_t offset,  \
                                        int64_t rows, T* out, int64_t threads) {                                      \
    Plan plan(numbers);                                                                                               \
    scaled<T>(Layout(plan), features, factors, offset, rows, out, threads);                                           \
  }                                                                                                                   \
  extern "C" void columns_##NAME(const T* features, const int64_t* place, const T* sign, int64_t rows,                \
                                 int64_t columns, T* out, int64_t threads) {                                          \
    reorder<T>(features, place, sign, rows, columns, out, threads);                                                   \
  }
DEFINE(float, float32)
DEFINE(double, float64)
