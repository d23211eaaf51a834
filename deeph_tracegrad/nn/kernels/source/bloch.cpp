// Bloch sums: blocks of all cells, times their phases, into the values of one CSR matrix (inference/bloch_sum.py).
#include <complex>
#include <type_traits>
#include <vector>

#include "simd.hpp"

namespace {

constexpr int64_t kAhead = 8;  // pairs whose blocks are asked for early, as they lie anywhere
enum Kind { kDirect, kMirrored, kDiagonal };

// The first `count` numbers times a phase; `Add` to what the sum holds. Complex ones go as pairs of numbers, which compilers
// turn into vectors. conjugate: -1 to take the conjugate of the products, else 1.
template <bool Add>
void multiply(double* sum, double phase, const double* block, int64_t count, double) {
  for (int64_t e = 0; e < count; ++e) sum[e] = (Add ? sum[e] : 0.0) + phase * block[e];
}
template <bool Add>
void multiply(double* sum, std::complex<double> phase, const double* block, int64_t count, double conjugate) {
  const double real = phase.real(), imaginary = conjugate * phase.imag();
  for (int64_t e = 0; e < count; ++e) {
    sum[2 * e] = (Add ? sum[2 * e] : 0.0) + real * block[e];
    sum[2 * e + 1] = (Add ? sum[2 * e + 1] : 0.0) + imaginary * block[e];
  }
}
template <bool Add>
void multiply(double* sum, std::complex<double> phase, const std::complex<double>* block, int64_t count,
              double conjugate) {
  const double real = phase.real(), imaginary = phase.imag();
  const double* numbers = reinterpret_cast<const double*>(block);
  for (int64_t e = 0; e < count; ++e) {
    const double x = numbers[2 * e], y = numbers[2 * e + 1];
    sum[2 * e] = (Add ? sum[2 * e] : 0.0) + (real * x - imaginary * y);
    sum[2 * e + 1] = (Add ? sum[2 * e + 1] : 0.0) + conjugate * (real * y + imaginary * x);
  }
}

double conjugate(double x) { return x; }
double real_part(double x) { return x; }
template <class T> std::complex<T> conjugate(std::complex<T> x) { return std::conj(x); }
template <class T> std::complex<T> real_part(std::complex<T> x) { return x.real(); }

template <class T>
void copy(const T* source, int64_t count, T* target) {
  for (int64_t c = 0; c < count; c += kLanes<T>) store_part(target + c, load_part(source + c, count - c), count - c);
}

// Copy past the caches what nobody reads soon: memory is then not read before it is written.
template <class T>
void stream(const T* source, int64_t count, T* target) {
#if defined(__AVX512F__)
  const int64_t head = std::min<int64_t>(count, (-reinterpret_cast<uintptr_t>(target) & 63) / sizeof(T));
  const int64_t lines = (count - head) / kLanes<T>;
  std::copy_n(source, head, target);
  for (int64_t k = 0; k < lines; ++k)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(target + head) + k, _mm512_loadu_si512(source + head + k * kLanes<T>));
  const int64_t done = head + lines * kLanes<T>;
  std::copy_n(source + done, count - done, target + done);
#else
  std::copy_n(source, count, target);
#endif
}

// Blocks (m, n) of pairs of atoms, all those of an atom's rows together. A block is the sum over its cells of phase[cell]
// times entries, from place offset on. That of a mirrored pair is the conjugate transpose of the other's, so it holds
// blocks (n, m); on the diagonal the upper triangle counts.
// first: (atoms + 1), where an atom's pairs begin; begin, end: of each pair's blocks in cell and offset; place: where the
// block begins in out; step: from row to row there. whole: whether the blocks fill the rows.
template <class Entry, class Phase, class T>
void bloch_sum(const Entry* entries, const Phase* phases, const int32_t* cell, const int64_t* offset,
               const int64_t* first, int64_t atoms, bool whole, const int64_t* begin, const int64_t* end,
               const int64_t* kind, const int64_t* rows, const int64_t* columns, const int64_t* place,
               const int64_t* step, T* out, int threads) {
  using Value = std::conditional_t<std::is_same_v<Phase, double>, T, std::complex<T>>;
  constexpr int64_t numbers = sizeof(Value) / sizeof(T);
  const int64_t pairs = first[atoms];
#pragma omp parallel num_threads(threads)
  {
    std::vector<double> sum;
    std::vector<T> rounded, gathered;
#pragma omp for schedule(static)
    for (int64_t a = 0; a < atoms; ++a) {
      const int64_t origin = place[first[a]], filled = numbers * rows[first[a]] * step[first[a]];
      if (whole && int64_t(gathered.size()) < filled) gathered.resize(filled);
      Value* const atom = reinterpret_cast<Value*>(whole ? gathered.data() : out + numbers * origin);
      for (int64_t p = first[a]; p < first[a + 1]; ++p) {
        const int64_t m = rows[p], n = columns[p], size = m * n, length = numbers * size;
        if (p + kAhead < pairs) {
          const char* next = reinterpret_cast<const char*>(entries + offset[begin[p + kAhead]]);
          for (int64_t byte = 0; byte < int64_t(size * sizeof(Entry)); byte += 64) __builtin_prefetch(next + byte);
        }
        if (int64_t(sum.size()) < length) sum.resize(length), rounded.resize(length);
        const double sign = kind[p] == kMirrored ? -1.0 : 1.0;
        multiply<false>(sum.data(), phases[cell[begin[p]]], entries + offset[begin[p]], size, sign);
        for (int64_t b = begin[p] + 1; b < end[p]; ++b)
          multiply<true>(sum.data(), phases[cell[b]], entries + offset[b], size, sign);
        T* summed = rounded.data();
        if constexpr (std::is_same_v<T, double>) summed = sum.data();
        else std::copy_n(sum.data(), length, summed);
        Value* const block = reinterpret_cast<Value*>(summed);
        Value* const target = atom + (place[p] - origin);
        if (kind[p] == kMirrored) {
          for (int64_t r = 0; r < m; ++r)
            for (int64_t c = 0; c < n; ++c) target[r * step[p] + c] = block[c * m + r];
          continue;
        }
        if (kind[p] == kDiagonal)
          for (int64_t r = 0; r < m; ++r) {
            block[r * n + r] = real_part(block[r * n + r]);
            for (int64_t c = 0; c < r; ++c) block[r * n + c] = conjugate(block[c * n + r]);
          }
        for (int64_t r = 0; r < m; ++r)
          copy(summed + numbers * r * n, numbers * n, reinterpret_cast<T*>(target + r * step[p]));
      }
      if (whole) stream(gathered.data(), filled, out + numbers * origin);
    }
  }
}

}  // namespace

// NAME: the type of the numbers that are stored, T; entries and phases are real or complex, and so is what is stored.
#define DEFINE(T, NAME)                                                                                               \
  extern "C" void bloch_sum_##NAME(int64_t complex_entries, int64_t complex_phases, const void* entries,              \
                                   const void* phases, const int32_t* cell, const int64_t* offset,                    \
                                   const int64_t* first, int64_t atoms, int64_t whole, const int64_t* begin,          \
                                   const int64_t* end, const int64_t* kind, const int64_t* rows,                      \
                                   const int64_t* columns, const int64_t* place, const int64_t* step, T* out,         \
                                   int64_t threads) {                                                                 \
    const auto run = [&](auto entry, auto phase) {                                                                    \
      bloch_sum(static_cast<const decltype(entry)*>(entries), static_cast<const decltype(phase)*>(phases), cell,      \
                offset, first, atoms, whole, begin, end, kind, rows, columns, place, step, out, threads);             \
    };                                                                                                                \
    using Complex = std::complex<double>;                                                                             \
    if (complex_entries) return run(Complex(), Complex());                                                            \
    if (complex_phases) return run(double(), Complex());                                                              \
    run(double(), double());                                                                                          \
  }
DEFINE(float, float32)
DEFINE(double, float64)
