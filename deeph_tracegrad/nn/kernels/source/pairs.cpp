// Quadratic forms of the channels of each irrep (nn/pairs.py). Rows go in tiles, whose products of every two channels
// stay in a core's cache.
#include <vector>

#include "layout.hpp"

namespace {

constexpr int64_t kTile = 16;  // rows

// pairs[v - u] for v = u, u + 1, ...: the sum over the components of one_u other_v + one_v other_u, the first halved.
template <class T, bool Same>
void products_with(const Group& group, const T* one, const T* other, int64_t u, T* pairs) {
  for (int64_t v = u; v < group.channels; v += kLanes<T>) {
    const int64_t count = group.channels - v;
    Vector<T> sum{};
    for (int64_t p = 0; p < group.size(); ++p) {
      const T *a = one + group.place[p], *b = other + group.place[p];
      if constexpr (Same) sum += 2 * a[u] * load_part(a + v, count);
      else sum += a[u] * load_part(b + v, count) + b[u] * load_part(a + v, count);
    }
    store_part(pairs + v - u, sum, count);
  }
  pairs[0] /= 2;
}

// Numbers in the symmetric matrices of all groups, each (c, padded c).
template <class T>
int64_t whole_size(const Layout& layout) {
  int64_t size = 0;
  for (const Group& group : layout.groups) size += group.channels * padded<T>(group.channels);
  return size;
}

// whole (H, whole_size): the symmetric matrices whose upper triangles are the columns of weight (U, H).
template <class T>
void unpack(const Layout& layout, const T* weight, int64_t width, T* whole) {
  const int64_t size = whole_size<T>(layout);
  for (int64_t h = 0; h < width; ++h) {
    T* matrix = whole + h * size;
    const T* next = weight + h;
    for (const Group& group : layout.groups) {
      const int64_t columns = padded<T>(group.channels);
      for (int64_t u = 0; u < group.channels; ++u)
        for (int64_t v = u; v < group.channels; ++v, next += width) matrix[u * columns + v] = matrix[v * columns + u] = *next;
      matrix += group.channels * columns;
    }
  }
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

// The products of one row.
template <class T>
void products(const Layout& layout, const T* one, const T* other, T* pairs) {
  for (const Group& group : layout.groups)
    for (int64_t u = 0; u < group.channels; pairs += group.channels - u, ++u)
      if (one == other) products_with<T, true>(group, one, other, u, pairs);
      else products_with<T, false>(group, one, other, u, pairs);
}

int64_t pairs_of(const Layout& layout) {
  int64_t pairs = 0;
  for (const Group& group : layout.groups) pairs += group.channels * (group.channels + 1) / 2;
  return pairs;
}

// target (rows, columns padded) = source (rows, columns)
template <class T>
void pad(int64_t rows, int64_t columns, const T* source, T* target) {
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(source + r * columns, columns, target + r * padded<T>(columns));
    std::fill(target + r * padded<T>(columns) + columns, target + (r + 1) * padded<T>(columns), T(0));
  }
}

// out (R, H) = products of one and other (R, U) times weight (U, H).
template <class T>
void forms(const Layout& layout, const T* one, const T* other, int64_t rows, const T* weight, int64_t width, T* out,
           int threads) {
  static thread_local Scratch<T> weight_memory;
  const int64_t pairs = pairs_of(layout), columns = padded<T>(width), tiles = (rows + kTile - 1) / kTile;
  T* matrix = weight_memory.of_size(pairs * columns);
  pad(pairs, width, weight, matrix);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t t = 0; t < tiles; ++t) {
    static thread_local Scratch<T> pair_memory, result_memory;
    T *packed = pair_memory.of_size(kTile * pairs), *result = result_memory.of_size(kTile * columns);
    const int64_t first = t * kTile, count = std::min(kTile, rows - first);
    for (int64_t r = 0; r < count; ++r)
      products(layout, one + (first + r) * layout.dim, other + (first + r) * layout.dim, packed + r * pairs);
    multiply<T>(count, columns, pairs, packed, pairs, 1, matrix, columns, result, columns, false);
    for (int64_t r = 0; r < count; ++r) std::copy_n(result + r * columns, width, out + (first + r) * width);
  }
}

// out (R, F): the symmetric matrices of slope (R, H) times the transposed weight (U, H), times the features.
template <class T>
void mixed(const Layout& layout, const T* features, const T* slope, int64_t rows, const T* weight, int64_t width, T* out,
           int threads) {
  static thread_local Scratch<T> weight_memory;
  const int64_t size = whole_size<T>(layout), tiles = (rows + kTile - 1) / kTile;
  T* matrix = cleared(weight_memory, width * size);
  unpack(layout, weight, width, matrix);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t t = 0; t < tiles; ++t) {
    static thread_local Scratch<T> whole_memory;
    T* whole = whole_memory.of_size(kTile * size);
    const int64_t first = t * kTile, count = std::min(kTile, rows - first);
    multiply<T>(count, size, width, slope + first * width, width, 1, matrix, size, whole, size, false);
    for (int64_t r = 0; r < count; ++r) {
      const T* next = whole + r * size;
      T* row = out + (first + r) * layout.dim;
      for (const Group& group : layout.groups) {
        mix(group, next, features + (first + r) * layout.dim, row);
        next += group.channels * padded<T>(group.channels);
      }
    }
  }
}

// out (U, H): the transposed products of one and other (R, U) times the gradient (R, H).
template <class T>
void weights(const Layout& layout, const T* one, const T* other, const T* gradient, int64_t rows, int64_t width, T* out,
             int threads) {
  static thread_local Scratch<T> sum_memory;
  const int64_t pairs = pairs_of(layout), columns = padded<T>(width), tiles = (rows + kTile - 1) / kTile;
  T* sums = cleared(sum_memory, threads * pairs * columns);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t share = 0; share < threads; ++share) {
    static thread_local Scratch<T> pair_memory, gradient_memory;
    T *packed = pair_memory.of_size(kTile * pairs), *upstream = gradient_memory.of_size(kTile * columns);
    for (int64_t t = share * tiles / threads; t < (share + 1) * tiles / threads; ++t) {
      const int64_t first = t * kTile, count = std::min(kTile, rows - first);
      for (int64_t r = 0; r < count; ++r)
        products(layout, one + (first + r) * layout.dim, other + (first + r) * layout.dim, packed + r * pairs);
      pad(count, width, gradient + first * width, upstream);
      multiply<T>(pairs, columns, count, packed, 1, pairs, upstream, columns, sums + share * pairs * columns, columns, true);
    }
  }
  for (int64_t share = 0; share < threads; ++share)
    for (int64_t u = 0; u < pairs; ++u)
      for (int64_t h = 0; h < width; ++h)
        out[u * width + h] = (share ? out[u * width + h] : T(0)) + sums[(share * pairs + u) * columns + h];
}

}  // namespace

#define DEFINE(T, NAME)                                                                                                \
  extern "C" void pair_forms_##NAME(const int64_t* numbers, const T* one, const T* other, int64_t rows,                \
                                    const T* weight, int64_t width, T* out, int64_t threads) {                         \
    Plan plan(numbers);                                                                                                \
    forms<T>(Layout(plan), one, other, rows, weight, width, out, threads);                                             \
  }                                                                                                                    \
  extern "C" void pair_mixed_##NAME(const int64_t* numbers, const T* features, const T* slope, int64_t rows,           \
                                    const T* weight, int64_t width, T* out, int64_t threads) {                         \
    Plan plan(numbers);                                                                                                \
    mixed<T>(Layout(plan), features, slope, rows, weight, width, out, threads);                                        \
  }                                                                                                                    \
  extern "C" void pair_weights_##NAME(const int64_t* numbers, const T* one, const T* other, const T* gradient,         \
                                      int64_t rows, int64_t width, T* out, int64_t threads) {                          \
    Plan plan(numbers);                                                                                                \
    weights<T>(Layout(plan), one, other, gradient, rows, width, out, threads);                                         \
  }
DEFINE(float, float32)
DEFINE(double, float64)
