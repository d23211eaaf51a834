// How features with irreps lie in memory (nn/layout.py), and their turns into the frames of edges.
#pragma once

#include <vector>

#include "simd.hpp"

namespace {

// Reads the integers of a plan, which Python writes, one after the other.
class Plan {
 public:
  explicit Plan(const int64_t* next) : next_(next) {}
  int64_t number() { return *next_++; }
  const int64_t* numbers(int64_t count) {
    const int64_t* first = next_;
    next_ += count;
    return first;
  }

 private:
  const int64_t* next_;
};

struct Group {
  int64_t degree, channels, first;  // first: number of its first channel
  bool natural;
  const int64_t* place;  // of the components m = 0, +1, -1, ... in a row
  int64_t size() const { return 2 * degree + 1; }
};

struct Layout {
  int64_t dim, channels, orders;
  const int64_t *block_start, *block_size;  // of m = 0, +1, -1, ...
  std::vector<Group> groups;

  explicit Layout(Plan& plan) {
    dim = plan.number();
    channels = plan.number();
    orders = plan.number();
    block_start = plan.numbers(orders);
    block_size = plan.numbers(orders);
    groups.resize(plan.number());
    for (Group& group : groups) {
      group.degree = plan.number();
      group.channels = plan.number();
      group.first = plan.number();
      group.natural = plan.number();
      group.place = plan.numbers(group.size());
    }
  }

  int64_t degree() const { return orders / 2; }
  // Channels with l >= m; zero beyond the largest degree.
  int64_t channels_of(int64_t m) const { return m > degree() ? 0 : block_size[m ? 2 * m - 1 : 0]; }
  int64_t first_channel(int64_t m) const { return channels - channels_of(m); }
};

// The order m of the component in row p of 0, +1, -1, +2, ..., and whether it is negative.
inline int64_t order_of(int64_t row) { return (row + 1) / 2; }
inline bool negative(int64_t row) { return row > 0 && row % 2 == 0; }

// For each degree and parity the address of the (R, 2l+1, 2l+1) turns; see EdgeRotations.
template <class T>
const T* rotation(const int64_t* addresses, const Group& group, int64_t edge) {
  const T* first = reinterpret_cast<const T*>(addresses[2 * group.degree + (group.natural ? 0 : 1)]);
  return first + edge * group.size() * group.size();
}

constexpr int64_t kLargestDegree = 16;
constexpr int64_t kLargestSize = 2 * kLargestDegree + 1;

// target[p] = or += sum_q D[p, q] source[q] (Transposed: D[q, p]) for vectors of channels.
// Size: 2l+1 where the compiler is to know it, so that the components stay in registers; else 0.
template <class T, int Size, bool Transposed, bool Add>
void rotate_of_size(const T* turn, const T* const* source, T* const* target, int64_t channels, int64_t any_size) {
  const int64_t size = Size ? Size : any_size;
  for (int64_t c = 0; c < channels; c += kLanes<T>) {
    const int64_t count = channels - c;
    Vector<T> x[Size ? Size : kLargestSize];
    for (int64_t q = 0; q < size; ++q) x[q] = load_part(source[q] + c, count);
    for (int64_t p = 0; p < size; ++p) {
      Vector<T> sum = Add ? load_part(target[p] + c, count) : Vector<T>{};
      for (int64_t q = 0; q < size; ++q) sum += (Transposed ? turn[q * size + p] : turn[p * size + q]) * x[q];
      store_part(target[p] + c, sum, count);
    }
  }
}

template <class T, bool Transposed, bool Add>
void rotate(int64_t degree, const T* turn, const T* const* source, T* const* target, int64_t channels) {
  switch (degree) {
    case 0: return rotate_of_size<T, 1, Transposed, Add>(turn, source, target, channels, 1);
    case 1: return rotate_of_size<T, 3, Transposed, Add>(turn, source, target, channels, 3);
    case 2: return rotate_of_size<T, 5, Transposed, Add>(turn, source, target, channels, 5);
    case 3: return rotate_of_size<T, 7, Transposed, Add>(turn, source, target, channels, 7);
    case 4: return rotate_of_size<T, 9, Transposed, Add>(turn, source, target, channels, 9);
    case 5: return rotate_of_size<T, 11, Transposed, Add>(turn, source, target, channels, 11);
    case 6: return rotate_of_size<T, 13, Transposed, Add>(turn, source, target, channels, 13);
    default: return rotate_of_size<T, 0, Transposed, Add>(turn, source, target, channels, 2 * degree + 1);
  }
}

}  // namespace
