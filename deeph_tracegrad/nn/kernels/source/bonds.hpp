// The convolution's tiles of bonds, and the way of features into them and back.
//
// A bond is two edges, i -> j and j -> i, whose frames differ by a half turn about their first axis (frames.py). All
// that it changes is the sign r of each row m and the sign c of each channel. From the features x of the atoms, in the
// frame of i -> j, and y of the edges, each in its own,
//   z_ij = A x_i + B x_j + C y_ij  and  r z_ji = A c x_j + B c x_i + C r y_ji,  hence
//   z_ij +- r z_ji = (A +- B c) (x_i +- c x_j) + C (y_ij +- r y_ji):
// for sum and difference one product each with features of atoms instead of two. On site x_i = x_j, and it is A + B.
#pragma once

#include "layout.hpp"

namespace {

constexpr int64_t kTile = 64;  // edges

struct Convolution {
  Layout node, edge, before, after;
  int64_t scalars, pseudoscalars, gated;
  const int64_t* offsets;  // of the matrices: [bond, on-site][atoms, edge][|m|]; of atoms A + B c, then A - B c

  explicit Convolution(Plan& plan)
      : node(plan), edge(plan), before(plan), after(plan), scalars(plan.number()), pseudoscalars(plan.number()),
        gated(plan.number()), offsets(plan.numbers(4 * orders())) {}

  int64_t orders() const { return before.degree() + 1; }
  int64_t offset(bool on_site, int source, int64_t m) const { return offsets[(2 * on_site + source) * orders() + m]; }
  template <class T>
  int64_t columns(int64_t m) const { return padded<T>(before.channels_of(m)); }
};

// Where the part of each |m| begins in a tile.
template <class T, class Width>
std::vector<int64_t> tile_starts(int64_t orders, Width width) {
  std::vector<int64_t> starts(orders + 1, 0);
  for (int64_t m = 0; m < orders; ++m) starts[m + 1] = starts[m] + kTile * (m ? 2 : 1) * width(m);
  return starts;
}

// Bonds, or edges on site. `halves` of a bond: sum and difference, or its edges; on site there is one.
struct Tile {
  int64_t first, count, halves;
  bool on_site() const { return halves == 1; }
  int64_t rows(int64_t m) const { return count * (m ? 2 : 1); }  // of one half, in the part of |m|: +m, then -m
  int64_t row(int64_t half, int64_t p, int64_t b) const {
    return half * rows(order_of(p)) + (negative(p) ? count : 0) + b;
  }
};

std::vector<Tile> tiles_of(int64_t on_site, int64_t edges) {
  std::vector<Tile> tiles;
  const int64_t bonds = (edges - on_site) / 2;
  for (int64_t e = 0; e < on_site; e += kTile) tiles.push_back({e, std::min(kTile, on_site - e), 1});
  for (int64_t b = 0; b < bonds; b += kTile / 2) tiles.push_back({b, std::min(kTile / 2, bonds - b), 2});
  return tiles;
}

template <class T>
struct Arguments {
  const Convolution& plan;
  const T *node, *edge;
  const int64_t *index, *bonds;  // (2, R), (2, B)
  const int64_t* rotations;
  const T *radial, *matrices;  // radial: of the atoms' edges on site, then of the bonds
  int64_t atoms, edges;

  int64_t edge_of(const Tile& tile, int64_t half, int64_t b) const {
    return tile.on_site() ? tile.first + b : bonds[half * (edges - atoms) / 2 + tile.first + b];
  }
  int64_t radial_row(const Tile& tile, int64_t b) const { return tile.first + b + (tile.on_site() ? 0 : atoms); }
};

// The sign of a row m of the half turn, and that of a channel. The latter is (-1)^l of pseudo channels with m = 0, which
// are not turned by a quarter (nn/layout.py): `half_of`.
int64_t row_sign(int64_t p) { return negative(p) == (order_of(p) % 2 == 0) && p ? -1 : 1; }
int64_t channel_sign(const Group& group) { return (group.degree % 2 == 0) == group.natural ? 1 : -1; }
int64_t half_of(const Tile& tile, int64_t half, const Group& group, int64_t p) {
  return !tile.on_site() && p == 0 && !group.natural ? 1 - half : half;
}

// sum, difference = scale (one +- sign other)
template <class T>
void split(int64_t count, const T* one, const T* other, T sign, T scale, T* sum, T* difference) {
  for (int64_t c = 0; c < count; c += kLanes<T>) {
    const Vector<T> x = scale * load_part(one + c, count - c), y = scale * sign * load_part(other + c, count - c);
    store_part(sum + c, x + y, count - c);
    store_part(difference + c, x - y, count - c);
  }
}

// The transpose: one = scale (sum + difference), other = scale sign (sum - difference).
template <class T>
void join(int64_t count, const T* sum, const T* difference, T sign, T scale, T* one, T* other) {
  for (int64_t c = 0; c < count; c += kLanes<T>) {
    const Vector<T> x = scale * load_part(sum + c, count - c), y = scale * load_part(difference + c, count - c);
    store_part(one + c, x + y, count - c);
    store_part(other + c, sign * (x - y), count - c);
  }
}

// Features of both atoms in the bonds' frames, sums and differences.
template <class T>
void gather_atoms(const Arguments<T>& a, const Tile& tile, const std::vector<int64_t>& starts, T* both, T* ends) {
  const Layout& node = a.plan.node;
  const T* source[kLargestSize];
  T* target[kLargestSize];
  for (int64_t b = 0; b < tile.count; ++b) {
    const int64_t e = a.edge_of(tile, 0, b);
    const T *one = a.node + a.index[e] * node.dim, *other = a.node + a.index[a.edges + e] * node.dim;
    for (const Group& group : node.groups)
      for (int64_t half = 0; half < tile.halves; ++half) {
        for (int64_t p = 0; p < group.size(); ++p) {
          const int64_t m = order_of(p), place = group.place[p];
          if (!tile.on_site() && half == 0)
            split<T>(group.channels, one + place, other + place, channel_sign(group), 1, both + place,
                     both + node.dim + place);
          source[p] = (tile.on_site() ? one : both + half * node.dim) + place;
          target[p] = m < a.plan.orders() ? ends + starts[m] + group.first - node.first_channel(m) +
                                                tile.row(half_of(tile, half, group, p), p, b) * node.channels_of(m)
                                          : ends + starts.back();  // no output has this order, and nobody reads there
        }
        rotate<T, false, false>(group.degree, rotation<T>(a.rotations, group, e), source, target, group.channels);
      }
  }
}

// Features of the edges, sums and differences.
template <class T>
void gather_edges(const Arguments<T>& a, const Tile& tile, const std::vector<int64_t>& starts, T* rows) {
  const Layout& edge = a.plan.edge;
  for (int64_t p = 0; p < std::min(a.plan.before.orders, edge.orders); ++p) {
    const int64_t size = edge.block_size[p];
    T* part = rows + starts[order_of(p)];
    for (int64_t b = 0; b < tile.count; ++b) {
      const T* one = a.edge + a.edge_of(tile, 0, b) * edge.dim + edge.block_start[p];
      T* sum = part + tile.row(0, p, b) * size;
      if (tile.on_site()) {
        std::copy_n(one, size, sum);
      } else {
        const T* other = a.edge + a.edge_of(tile, 1, b) * edge.dim + edge.block_start[p];
        split<T>(size, one, other, row_sign(p), 1, sum, part + tile.row(1, p, b) * size);
      }
    }
  }
}

// The edges' own gradients in the blocks of |m| from those of sums and differences.
template <class T>
void write_edges(const Arguments<T>& a, const Tile& tile, int64_t m, const T* rows, int64_t width, T* edge_gradient) {
  const Layout& edge = a.plan.edge;
  for (int64_t p = m ? 2 * m - 1 : 0; p <= 2 * m; ++p)
    for (int64_t b = 0; b < tile.count; ++b) {
      const T* sum = rows + tile.row(0, p, b) * width;
      T* one = edge_gradient + a.edge_of(tile, 0, b) * edge.dim + edge.block_start[p];
      if (tile.on_site()) {
        std::copy_n(sum, edge.block_size[p], one);
      } else {
        T* other = edge_gradient + a.edge_of(tile, 1, b) * edge.dim + edge.block_start[p];
        join<T>(edge.block_size[p], sum, rows + tile.row(1, p, b) * width, row_sign(p), 1, one, other);
      }
    }
}

// Adds the atoms' gradients from those of sums and differences, turned back.
template <class T>
void scatter_atoms(const Arguments<T>& a, const Tile& tile, const std::vector<int64_t>& starts, const T* end_gradient,
                   const T* zeros, T* both, T* nodes) {
  const Layout& node = a.plan.node;
  const T* source[kLargestSize];
  T* target[kLargestSize];
  for (int64_t b = 0; b < tile.count; ++b) {
    const int64_t e = a.edge_of(tile, 0, b);
    for (const Group& group : node.groups)
      for (int64_t half = 0; half < tile.halves; ++half) {
        for (int64_t p = 0; p < group.size(); ++p) {
          const int64_t m = order_of(p);
          source[p] = m < a.plan.orders()
                          ? end_gradient + starts[m] + group.first - node.first_channel(m) +
                                tile.row(half_of(tile, half, group, p), p, b) * padded<T>(node.channels_of(m))
                          : zeros;
          target[p] = both + half * node.dim + group.place[p];
        }
        rotate<T, true, false>(group.degree, rotation<T>(a.rotations, group, e), source, target, group.channels);
        for (int64_t p = 0; half && p < group.size(); ++p)
          join<T>(group.channels, target[p] - node.dim, target[p], channel_sign(group), 1, target[p] - node.dim,
                  target[p]);
      }
    for (int64_t half = 0; half < tile.halves; ++half) {
      T* total = nodes + a.index[half * a.edges + e] * node.dim;
      for (int64_t f = 0; f < node.dim; ++f) total[f] += both[half * node.dim + f];
    }
  }
}

}  // namespace
