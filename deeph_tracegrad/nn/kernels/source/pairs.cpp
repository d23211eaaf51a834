// Products of every two channels of an irrep, and symmetric matrices of channels times features (nn/pairs.py).
#include "layout.hpp"

namespace {

// pairs[v - u] for v = u, u + 1, ...: the sum over the components of one_u other_v + one_v other_u, the first halved.
template <class T>
void products_with(const Group& group, const T* one, const T* other, int64_t u, T* pairs) {
  for (int64_t v = u; v < group.channels; v += kLanes<T>) {
    const int64_t count = group.channels - v;
    Vector<T> sum{};
    for (int64_t p = 0; p < group.size(); ++p) {
      const T *a = one + group.place[p], *b = other + group.place[p];
      sum += a[u] * load_part(b + v, count) + b[u] * load_part(a + v, count);
    }
    store_part(pairs + v - u, sum, count);
  }
  pairs[0] /= 2;
}

// whole (c, padded c): the symmetric matrix with this upper triangle. Returns where the triangle ends.
template <class T>
const T* unpack(const T* packed, int64_t channels, T* whole) {
  const int64_t width = padded<T>(channels);
  for (int64_t u = 0; u < channels; packed += channels - u, ++u)
    for (int64_t v = u; v < channels; ++v) whole[v * width + u] = whole[u * width + v] = packed[v - u];
  return packed;
}

// out_u = sum_v M_uv f_v. Size: 2l+1 where the compiler is to know it, so that the sums stay in registers; else 0.
template <class T, int Size>
void mix_of_size(const Group& group, const T* whole, const T* features, T* out) {
  const int64_t size = Size ? Size : group.size(), width = padded<T>(group.channels);
  for (int64_t u = 0; u < group.channels; u += kLanes<T>) {
    Vector<T> sum[Size ? Size : kLargestSize] = {};
    for (int64_t v = 0; v < group.channels; ++v) {
      const Vector<T> row = load(whole + v * width + u);
      for (int64_t p = 0; p < size; ++p) sum[p] += features[group.place[p] + v] * row;
    }
    for (int64_t p = 0; p < size; ++p) store_part(out + group.place[p] + u, sum[p], group.channels - u);
  }
}

template <class T>
void mix(const Group& group, const T* whole, const T* features, T* out) {
  switch (group.degree) {
    case 0: return mix_of_size<T, 1>(group, whole, features, out);
    case 1: return mix_of_size<T, 3>(group, whole, features, out);
    case 2: return mix_of_size<T, 5>(group, whole, features, out);
    case 3: return mix_of_size<T, 7>(group, whole, features, out);
    case 4: return mix_of_size<T, 9>(group, whole, features, out);
    default: return mix_of_size<T, 0>(group, whole, features, out);
  }
}

template <class T>
void pair_products(const Layout& layout, const T* one, const T* other, int64_t rows, int64_t pairs, T* out, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    T* next = out + r * pairs;
    for (const Group& group : layout.groups)
      for (int64_t u = 0; u < group.channels; next += group.channels - u, ++u)
        products_with(group, one + r * layout.dim, other + r * layout.dim, u, next);
  }
}

template <class T>
void pairs_mixed(const Layout& layout, const T* matrix, const T* features, int64_t rows, int64_t pairs, T* out, int threads) {
  int64_t largest = 0;
  for (const Group& group : layout.groups) largest = std::max(largest, group.channels);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    static thread_local Scratch<T> scratch;
    T* whole = scratch.of_size(largest * padded<T>(largest));
    std::fill(out + r * layout.dim, out + (r + 1) * layout.dim, T(0));  // where channels are not paired
    const T* next = matrix + r * pairs;
    for (const Group& group : layout.groups) {
      next = unpack(next, group.channels, whole);
      mix(group, whole, features + r * layout.dim, out + r * layout.dim);
    }
  }
}

}  // namespace

#define DEFINE(T, NAME)                                                                                              \
  extern "C" void pair_products_##NAME(const int64_t* numbers, const T* one, const T* other, int64_t rows,           \
                                       int64_t pairs, T* out, int64_t threads) {                                     \
    Plan plan(numbers);                                                                                              \
    pair_products<T>(Layout(plan), one, other, rows, pairs, out, threads);                                           \
  }                                                                                                                  \
  extern "C" void pairs_mixed_##NAME(const int64_t* numbers, const T* matrix, const T* features, int64_t rows,       \
                                     int64_t pairs, T* out, int64_t threads) {                                       \
    Plan plan(numbers);                                                                                              \
    pairs_mixed<T>(Layout(plan), matrix, features, rows, pairs, out, threads);                                       \
  }
DEFINE(float, float32)
DEFINE(double, float64)
