// What depends on the atoms' places only: the turns into the edges' frames, and the Gaussians of the edges' lengths.
#include <cmath>

#include "layout.hpp"

namespace {

// D_l of the frames, by R = Rz(a) Ry(b) Rz(c) and Ry(b) = J Rz(b) J (frames.py), a vector of edges at a time.
// frames: (R, 3, 3). half_turn: D_l(J), (2l+1, 2l+1), m = -l..l. natural, pseudo: (R, 2l+1, 2l+1) or null, rows and
// columns m = 0, +1, -1, ...; the rows of pseudo channels are turned by a quarter (nn/layout.py).
template <class T>
void turns(const double* frames, int64_t edges, int64_t degree, const double* half_turn, T* natural, T* pseudo) {
  constexpr int lanes = kLanes<double>;
  using V = Vector<double>;
  const int size = 2 * degree + 1;
  V cosine[3][kLargestDegree + 1], sine[3][kLargestDegree + 1];
  V one[kLargestSize * kLargestSize], two[kLargestSize * kLargestSize];
  // columns m and -m of a matrix times D(Rz(angle))
  const auto turned = [&](const V* matrix, int angle, V* result) {
    for (int r = 0; r < size; ++r)
      for (int m = -degree; m <= degree; ++m) {
        const V s = m < 0 ? -sine[angle][-m] : sine[angle][m];
        result[r * size + degree + m] = matrix[r * size + degree + m] * cosine[angle][std::abs(m)] +
                                        matrix[r * size + degree - m] * s;
      }
  };
  for (int64_t first = 0; first < edges; first += lanes) {
    const int count = std::min<int64_t>(lanes, edges - first);
    for (int k = 0; k < lanes; ++k) {
      const double* f = frames + 9 * (first + std::min(k, count - 1));
      const double horizontal = std::hypot(f[2], f[5]);
      const double c = horizontal > 0 ? f[2] / horizontal : 1.0, s = horizontal > 0 ? f[5] / horizontal : 0.0;
      cosine[0][1][k] = c, sine[0][1][k] = -s;  // of -a: the matrix is transposed when it comes to it
      cosine[1][1][k] = f[8], sine[1][1][k] = horizontal;
      cosine[2][1][k] = c * f[4] - s * f[1], sine[2][1][k] = c * f[3] - s * f[0];
    }
    for (int angle = 0; angle < 3; ++angle) {
      cosine[angle][0] = V{} + 1.0, sine[angle][0] = V{};
      for (int m = 2; m <= degree; ++m) {
        cosine[angle][m] = cosine[angle][m - 1] * cosine[angle][1] - sine[angle][m - 1] * sine[angle][1];
        sine[angle][m] = sine[angle][m - 1] * cosine[angle][1] + cosine[angle][m - 1] * sine[angle][1];
      }
    }
    for (int k = 0; k < size * size; ++k) one[k] = V{} + half_turn[k];
    turned(one, 1, two);
    for (int r = 0; r < size; ++r)  // (two J), transposed
      for (int c = 0; c < size; ++c) {
        V sum{};
        for (int k = 0; k < size; ++k) sum += two[r * size + k] * half_turn[k * size + c];
        one[c * size + r] = sum;
      }
    turned(one, 0, two);
    for (int r = 0; r < size; ++r)
      for (int c = 0; c < size; ++c) one[c * size + r] = two[r * size + c];
    turned(one, 2, two);
    for (int row = 0; row < size; ++row)
      for (int column = 0; column < size; ++column) {
        const auto m = [&](int at) { return negative(at) ? -order_of(at) : order_of(at); };
        const V value = two[(degree + m(row)) * size + degree + m(column)];
        // p'_{+m} = -p_{-m} and p'_{-m} = p_{+m}
        const int target = row == 0 ? 0 : negative(row) ? row - 1 : row + 1;
        for (int k = 0; k < count; ++k) {
          const int64_t at = (first + k) * size * size;
          if (natural) natural[at + row * size + column] = value[k];
          if (pseudo) pseudo[at + target * size + column] = negative(row) ? -value[k] : value[k];
        }
      }
  }
}

// exp(-((length - centre) / width)^2 / 2), zero where it is below 1e-20 of the largest.
template <class T>
void gaussians(const T* lengths, int64_t edges, const T* centres, int64_t count, double width, T* out) {
  const double reach = 9.6 * width;
  for (int64_t e = 0; e < edges; ++e) {
    T* row = out + e * count;
    std::fill_n(row, count, T(0));
    const auto low = std::lower_bound(centres, centres + count, T(lengths[e] - reach)) - centres;
    const auto high = std::upper_bound(centres, centres + count, T(lengths[e] + reach)) - centres;
    for (int64_t c = low; c < high; c += kLanes<T>) {
      const Vector<T> x = (lengths[e] - load_part(centres + c, high - c)) / T(width);
      store_part(row + c, exponential<T>(T(-0.5) * x * x), high - c);
    }
  }
}

}  // namespace

#define DEFINE(T, NAME)                                                                                               \
  extern "C" void turns_##NAME(const double* frames, int64_t edges, int64_t degree, const double* half_turn,          \
                               T* natural, T* pseudo) {                                                               \
    turns<T>(frames, edges, degree, half_turn, natural, pseudo);                                                      \
  }                                                                                                                   \
  extern "C" void gaussians_##NAME(const T* lengths, int64_t edges, const T* centres, int64_t count,                  \
                                   const double* width, T* out) {                                                     \
    gaussians<T>(lengths, edges, centres, count, *width, out);                                                        \
  }
DEFINE(float, float32)
DEFINE(double, float64)
