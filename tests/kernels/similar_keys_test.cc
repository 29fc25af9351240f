// The search for near-duplicates looks at rounded keys first. What it answers is the truth about the units' products as
// chains of fused multiply-adds, on every instruction set, however near to the threshold they are.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/key_tiles.h"

namespace cairn::cpu {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<const Kernels*> VectorTables() {
  std::vector<const Kernels*> tables = AvailableKernels();
  tables.erase(tables.begin());  // the scalar loops do not fuse
#if defined(__x86_64__)
  if (!tables.empty()) tables.push_back(&kEmulatedAvx512Kernels);
#endif
  return tables;
}

// A tile of keys, and what the kernels make of it.
struct Tile {
  Tile(const Kernels& kernels, std::vector<float> values, int64_t d, int32_t count) : keys(std::move(values)) {
    const int64_t padded = (d + 15) / 16 * 16;
    units.resize(kKeyTileSlots * padded);
    rounded.resize(kKeyTileSlots * padded);
    panels.resize(kKeyTileSlots * ((d + 1) / 2));
    std::vector<float> squares(kKeyTileSlots), sum(padded);
    const int32_t table[] = {0};
    KeyTile tile;
    tile.k = reinterpret_cast<const uint8_t*>(keys.data());
    tile.block_table = table;
    tile.block_size = kKeyTileSlots;
    tile.head_dim = d;
    tile.slot_end = count;
    kernels.unit_keys(tile, padded, units.data(), squares.data(), sum.data(), rounded.data());
    kernels.key_panels(rounded.data(), padded, d, panels.data());
  }

  std::vector<float> keys, units;
  std::vector<int16_t> rounded;
  std::vector<uint32_t> panels;
};

std::vector<float> RandomKeys(std::mt19937& random, int64_t d, float spread) {
  std::normal_distribution<float> normal;
  std::vector<float> keys(kKeyTileSlots * d), center(d);
  for (float& x : center) x = normal(random);
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = center[i % d] + spread * normal(random);
  const auto set = [&](int key, float value) { keys[key * d + d / 2] = value; };
  set(3, kNan);
  set(17, kInfinity);
  set(40, 1e30f);  // its square is infinite
  for (int64_t i = 0; i < d; ++i) keys[61 * d + i] = 0;
  return keys;
}

struct Products {
  float at[kKeyTileSlots][kKeyTileSlots];

  Products(const Tile& rows, const Tile& columns, int64_t d) {
    const int64_t padded = static_cast<int64_t>(rows.units.size()) / kKeyTileSlots;
    for (int r = 0; r < kKeyTileSlots; ++r) {
      for (int c = 0; c < kKeyTileSlots; ++c) {
        float chain = 0;
        for (int64_t i = 0; i < d; ++i) {
          chain = std::fma(rows.units[r * padded + i], columns.units[c * padded + i], chain);
        }
        at[r][c] = chain;
      }
    }
  }
};

void ExpectTheTruth(const KeyPairs& pairs, const Products& products, uint64_t found, const uint64_t* masks) {
  uint64_t truth[kKeyTileSlots], column_found = 0;
  for (int r = 0; r < kKeyTileSlots; ++r) {
    truth[r] = 0;
    for (int c = pairs.above ? r + 1 : 0; c < kKeyTileSlots; ++c) {
      if (products.at[r][c] > pairs.threshold) truth[r] |= uint64_t{1} << c;
    }
    truth[r] &= pairs.valid;
  }
  for (int r = kKeyTileSlots - 1; r >= 0; --r) {
    ASSERT_EQ(masks[r] & ~truth[r], 0u) << "row " << r;
    ASSERT_EQ(found >> r & 1, masks[r] != 0 ? 1u : 0u) << "row " << r;
    if ((pairs.searching_rows >> r & 1) != 0) {
      ASSERT_EQ(std::bit_width(masks[r]), std::bit_width(truth[r])) << "row " << r;
    }
    const uint64_t last = truth[r] & pairs.searching_columns & ~column_found;
    ASSERT_EQ(masks[r] & last, last) << "row " << r;
    column_found |= truth[r];
  }
}

TEST(SimilarKeysTest, DoubtsAreDecidedByTheChain) {
  for (const Kernels* kernels : VectorTables()) {
    std::mt19937 random(7);
    const auto bits = [&] { return uint64_t{random()} << 32 | random(); };
    for (const int d : {2, 16, 33, 128}) {
      const int64_t padded = (d + 15) / 16 * 16;
      const Tile rows(*kernels, RandomKeys(random, d, 0.8f), d, 64);
      const Tile columns(*kernels, RandomKeys(random, d, 0.8f), d, 50);
      for (const bool above : {false, true}) {
        const Tile& others = above ? rows : columns;
        const auto products = std::make_unique<Products>(rows, others, d);
        // Thresholds that some product is, or is just above; and some that zeros are above.
        std::vector<float> thresholds = {0.5f, 0, -0.25f, 1, -1, 1e-5f};
        for (int i = 0; i < 40; ++i) {
          const float product = products->at[random() % 32][32 + random() % 16];
          if (std::isnan(product)) continue;
          thresholds.push_back(product);
          thresholds.push_back(std::nextafter(product, -2.0f));
        }
        for (const float threshold : thresholds) {
          SCOPED_TRACE(testing::Message()
                       << kernels->name << ", d " << d << ", threshold " << threshold << (above ? ", above" : ""));
          KeyPairs pairs;
          pairs.row_units = rows.units.data();
          pairs.column_units = others.units.data();
          pairs.rows = rows.rounded.data();
          pairs.columns = others.panels.data();
          pairs.padded = padded;
          pairs.head_dim = d;
          pairs.threshold = threshold;
          const SimilarBounds bounds(threshold, d);
          pairs.first_similar = bounds.first_similar;
          pairs.doubt = bounds.doubt;
          pairs.above = above;
          pairs.valid = above ? ~uint64_t{0} : ~uint64_t{0} >> 14;
          pairs.searching_rows = random() % 4 == 0 ? ~uint64_t{0} : bits() & bits();
          pairs.searching_columns = (random() % 2 == 0 ? 0 : bits() & bits()) & pairs.valid;
          uint64_t masks[kKeyTileSlots];
          const uint64_t found = kernels->similar_keys(pairs, masks);
          ExpectTheTruth(pairs, *products, found, masks);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

}  // namespace
}  // namespace cairn::cpu
