// Vectors, a matrix product for tiles that stay in a core's cache, and the activations.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <type_traits>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

// Register blocks of the matrix product: rows times vectors, so that the sums fill the machine's registers.
#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kRows = 8, kVectors = 3;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32, kRows = 4, kVectors = 3;
#else
constexpr int kVectorBytes = 16, kRows = 4, kVectors = 4;
#endif

template <class T>
constexpr int kLanes = kVectorBytes / sizeof(T);

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes), aligned(sizeof(T)), may_alias));
};
template <class T>
using Vector = typename VectorOf<T>::type;

template <class T>
int64_t padded(int64_t count) {
  return (count + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

template <class T>
Vector<T> load(const T* source) {
  return *reinterpret_cast<const Vector<T>*>(source);
}

template <class T>
void store(T* target, Vector<T> value) {
  *reinterpret_cast<Vector<T>*>(target) = value;
}

// The first `count` lanes, the others zero.
template <class T>
Vector<T> load_part(const T* source, int64_t count) {
  if (count >= kLanes<T>) return load(source);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return (Vector<T>)_mm512_maskz_loadu_ps((1u << count) - 1, source);
  else return (Vector<T>)_mm512_maskz_loadu_pd((1u << count) - 1, source);
#else
  T lanes[kLanes<T>] = {};
  for (int64_t k = 0; k < count; ++k) lanes[k] = source[k];
  return load(lanes);
#endif
}

template <class T>
void store_part(T* target, Vector<T> value, int64_t count) {
  if (count >= kLanes<T>) return store(target, value);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) _mm512_mask_storeu_ps(target, (1u << count) - 1, (__m512)value);
  else _mm512_mask_storeu_pd(target, (1u << count) - 1, (__m512d)value);
#else
  for (int64_t k = 0; k < count; ++k) target[k] = value[k];
#endif
}

// The transposed square of as many vectors as they have lanes: for each power of two the halves off the diagonal change
// places, from large squares to small ones.
template <class T>
void transpose_square(Vector<T>* rows) {
#if defined(__GNUC__) && !defined(__clang__)
  using Places = typename VectorOf<std::conditional_t<sizeof(T) == 4, int32_t, int64_t>>::type;
  for (int half = kLanes<T> / 2; half; half /= 2) {
    Places low, high;
    for (int k = 0; k < kLanes<T>; ++k) {
      low[k] = k & half ? kLanes<T> + k - half : k;
      high[k] = k & half ? kLanes<T> + k : k + half;
    }
    for (int r = 0; r < kLanes<T>; ++r)
      if (!(r & half)) {
        const Vector<T> first = rows[r], second = rows[r + half];
        rows[r] = __builtin_shuffle(first, second, low);
        rows[r + half] = __builtin_shuffle(first, second, high);
      }
  }
#else
  for (int r = 0; r < kLanes<T>; ++r)
    for (int k = 0; k < r; ++k) {
      const T below = rows[r][k];
      rows[r][k] = rows[k][r];
      rows[k][r] = below;
    }
#endif
}

template <class T, int Rows, int Vectors>
inline void register_block(int64_t depth, const T* a, int64_t row_stride, int64_t depth_stride, const T* b, int64_t ldb,
                           T* c, int64_t ldc, bool add) {
  Vector<T> sum[Rows][Vectors];
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < Vectors; ++v) sum[r][v] = add ? load(c + r * ldc + v * kLanes<T>) : Vector<T>{};
  for (int64_t k = 0; k < depth; ++k) {
    Vector<T> row[Vectors];
    for (int v = 0; v < Vectors; ++v) row[v] = load(b + k * ldb + v * kLanes<T>);
    for (int r = 0; r < Rows; ++r) {
      const T factor = a[r * row_stride + k * depth_stride];
      for (int v = 0; v < Vectors; ++v) sum[r][v] += factor * row[v];
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < Vectors; ++v) store(c + r * ldc + v * kLanes<T>, sum[r][v]);
}

template <class T, int Vectors>
void column_block(int64_t rows, int64_t depth, const T* a, int64_t row_stride, int64_t depth_stride, const T* b,
                  int64_t ldb, T* c, int64_t ldc, bool add) {
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows)
    register_block<T, kRows, Vectors>(depth, a + r * row_stride, row_stride, depth_stride, b, ldb, c + r * ldc, ldc, add);
  for (; r + 2 <= rows; r += 2)
    register_block<T, 2, Vectors>(depth, a + r * row_stride, row_stride, depth_stride, b, ldb, c + r * ldc, ldc, add);
  if (r < rows)
    register_block<T, 1, Vectors>(depth, a + r * row_stride, row_stride, depth_stride, b, ldb, c + r * ldc, ldc, add);
}

// c (rows, columns) = or += a (rows, depth) b (depth, columns). columns: padded. a may be transposed: it has two strides.
template <class T>
void multiply(int64_t rows, int64_t columns, int64_t depth, const T* a, int64_t row_stride, int64_t depth_stride,
              const T* b, int64_t ldb, T* c, int64_t ldc, bool add) {
  constexpr int64_t lanes = kLanes<T>;
  int64_t n = 0;
  for (; n + kVectors * lanes <= columns; n += kVectors * lanes)
    column_block<T, kVectors>(rows, depth, a, row_stride, depth_stride, b + n, ldb, c + n, ldc, add);
  for (; n + 2 * lanes <= columns; n += 2 * lanes)
    column_block<T, 2>(rows, depth, a, row_stride, depth_stride, b + n, ldb, c + n, ldc, add);
  if (n < columns) column_block<T, 1>(rows, depth, a, row_stride, depth_stride, b + n, ldb, c + n, ldc, add);
}

// target (columns, rows padded) = scale * source (rows, columns), in blocks that stay in the first cache.
template <class T>
void transpose(int64_t rows, int64_t columns, const T* source, int64_t stride, T scale, T* target) {
  constexpr int64_t block = 16;
  const int64_t width = padded<T>(rows);
  for (int64_t first = 0; first < columns; first += block)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = first; c < std::min(first + block, columns); ++c) target[c * width + r] = scale * source[r * stride + c];
  for (int64_t c = 0; c < columns; ++c) std::fill(target + c * width + rows, target + (c + 1) * width, T(0));
}

template <class T>
struct Exponent;
template <>
struct Exponent<float> {
  using Bits = int32_t;
  static constexpr int mantissa = 23, bias = 127, terms = 7;
  static constexpr float largest = 87.0f, round = 12582912.0f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
};
template <>
struct Exponent<double> {
  using Bits = int64_t;
  static constexpr int mantissa = 52, bias = 1023, terms = 13;
  static constexpr double largest = 700.0, round = 6755399441055744.0, ln2_high = 6.93145751953125e-1,
                          ln2_low = 1.42860682030941723212e-6;
};

template <class T>
struct Exponential {
  Vector<T> power, rest;  // exp(x) = power (1 + rest)
};

// x = n ln(2) + r with |r| <= ln(2)/2: the power is 2^n, the rest exp(r) - 1 by its Taylor series.
template <class T>
Exponential<T> exponential_of(Vector<T> x) {
  using E = Exponent<T>;
  using Bits = typename E::Bits;
  typedef Bits BitVector __attribute__((vector_size(kVectorBytes), aligned(sizeof(Bits)), may_alias));
  x = x > E::largest ? Vector<T>{} + E::largest : x;
  x = x < -E::largest ? Vector<T>{} - E::largest : x;
  const Vector<T> shifted = x * T(1.44269504088896340736) + E::round;  // n stands in the lowest bits
  const Vector<T> n = shifted - E::round;
  const Vector<T> r = (x - n * E::ln2_high) - n * E::ln2_low;
  Vector<T> sum = Vector<T>{} + T(1);
  for (int k = E::terms; k > 1; --k) sum = T(1) + sum * (r * T(1.0 / k));
  const Vector<T> zero = Vector<T>{} + E::round;
  const BitVector bits = ((BitVector)shifted - (BitVector)zero + E::bias) << E::mantissa;
  return {(Vector<T>)bits, r * sum};
}

template <class T>
Vector<T> exponential(Vector<T> x) {
  const Exponential<T> e = exponential_of<T>(x);
  return e.power + e.power * e.rest;
}

template <class T>
Vector<T> sigmoid(Vector<T> x) {
  return T(1) / (T(1) + exponential<T>(-x));
}

template <class T>
Vector<T> hyperbolic_tangent(Vector<T> x) {
  const Exponential<T> e = exponential_of<T>(T(2) * x);
  const Vector<T> less_one = e.power * e.rest + (e.power - T(1));  // exact for small x too
  return less_one / (less_one + T(2));
}

// Memory that a thread keeps for its next call: what is allocated anew is touched for the first time, which is slow.
template <class T>
class Scratch {
 public:
  T* of_size(int64_t count) {
    if (count > size_) {
      size_ = count + count / 2;
      memory_.reset(static_cast<T*>(std::aligned_alloc(64, (size_ * sizeof(T) + 63) / 64 * 64)));
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(T* memory) const { std::free(memory); }
  };
  std::unique_ptr<T[], Free> memory_;
  int64_t size_ = 0;
};

template <class T>
T* cleared(Scratch<T>& scratch, int64_t count) {
  T* memory = scratch.of_size(count);
  std::fill(memory, memory + count, T(0));
  return memory;
}

}  // namespace
