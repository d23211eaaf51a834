// A sparse matrix times a few vectors (inference/solvers/product.py). One pass over the matrix serves all vectors.
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace {

constexpr int64_t kChains = 4;  // sums that grow side by side, as each addition waits for the one before it

template <class T, int width>
struct Numbers {
  typedef T type __attribute__((vector_size(width * sizeof(T))));
};

// One row times P vectors, whose numbers lie side by side: of complex ones 2P. x: (columns, stride) numbers.
// A complex entry's real and imaginary part each multiply the whole row of x; the sums are put together at the end.
template <bool Complex, int P, class T, class Index>
void row_product(const T* values, const Index* indices, int64_t count, const T* x, int64_t stride, T* out) {
  constexpr int width = Complex ? 2 * P : P;
  using Row = typename Numbers<T, width>::type;
  Row by_real[kChains] = {}, by_imaginary[kChains] = {};
  const auto add = [&](int64_t entry, int64_t chain) {
    Row from;
    std::memcpy(&from, x + int64_t(indices[entry]) * stride, sizeof(from));
    if constexpr (Complex) {
      by_real[chain] += values[2 * entry] * from;
      by_imaginary[chain] += values[2 * entry + 1] * from;
    } else {
      by_real[chain] += values[entry] * from;
    }
  };
  int64_t entry = 0;
  for (; entry + kChains <= count; entry += kChains) {
#pragma GCC unroll 8
    for (int64_t chain = 0; chain < kChains; ++chain) add(entry + chain, chain);
  }
  for (; entry < count; ++entry) add(entry, 0);
  for (int64_t chain = 1; chain < kChains; ++chain)
    by_real[0] += by_real[chain], by_imaginary[0] += by_imaginary[chain];
  if constexpr (Complex)
    for (int c = 0; c < width; c += 2) {
      by_real[0][c] -= by_imaginary[0][c + 1];
      by_real[0][c + 1] += by_imaginary[0][c];
    }
  std::memcpy(out, &by_real[0], sizeof(Row));
}

// (rows, vectors) = matrix (rows, columns) times x (columns, vectors), both row by row.
template <bool Complex, class T, class Index>
void product(const T* values, const Index* indices, const Index* starts, int64_t rows, const T* x, int64_t vectors,
             T* out, int threads) {
  constexpr int64_t numbers = Complex ? 2 : 1;
  const int64_t stride = numbers * vectors;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 64)
  for (int64_t r = 0; r < rows; ++r) {
    const T* const row = values + numbers * starts[r];
    const Index* const places = indices + starts[r];
    const int64_t count = starts[r + 1] - starts[r];
    int64_t v = 0;
    for (; v + 4 <= vectors; v += 4)
      row_product<Complex, 4>(row, places, count, x + numbers * v, stride, out + r * stride + numbers * v);
    for (; v < vectors; ++v)
      row_product<Complex, 1>(row, places, count, x + numbers * v, stride, out + r * stride + numbers * v);
  }
}

template <class T>
void product_of_kind(bool complex_values, bool wide_indices, const T* values, const void* indices, const void* starts,
                     int64_t rows, const T* x, int64_t vectors, T* out, int threads) {
  const auto run = [&](auto kind, auto index) {
    using Index = decltype(index);
    product<kind.value>(values, static_cast<const Index*>(indices), static_cast<const Index*>(starts), rows, x, vectors,
                        out, threads);
  };
  const auto of_kind = [&](auto kind) { wide_indices ? run(kind, int64_t()) : run(kind, int32_t()); };
  complex_values ? of_kind(std::true_type()) : of_kind(std::false_type());
}

}  // namespace

#define DEFINE(T, NAME)                                                                                                \
  extern "C" void sparse_product_##NAME(int64_t complex_values, int64_t wide_indices, const T* values,                 \
                                        const void* indices, const void* starts, int64_t rows, const T* x,             \
                                        int64_t vectors, T* out, int64_t threads) {                                    \
    product_of_kind<T>(complex_values, wide_indices, values, indices, starts, rows, x, vectors, out, threads);         \
  }
DEFINE(float, float32)
DEFINE(double, float64)
