// The heat maps of --shadow-full.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launcher/eval/shadow.h"
#include "launcher/eval/svg.h"

namespace cairn {
namespace {

constexpr double kMargin = 64, kMapWidth = 300, kGap = 90, kTitle = 30, kRowHeight = 13, kHeader = 58;

// White to dark blue; the square root, so that a loss of one percent differs from none.
std::string HeatColor(double share) {
  const double t = std::sqrt(std::clamp(share, 0.0, 1.0));
  const auto mix = [t](double from, double to) { return static_cast<int>(std::lround(from + t * (to - from))); };
  return absl::StrFormat("#%02x%02x%02x", mix(247, 8), mix(251, 48), mix(255, 107));
}

std::string Map(const ShadowStatistics& statistics, double left, double top, const std::string& title,
                double (ShadowSums::*value)() const) {
  std::string svg = SvgText(left, top - 8, "start", title);
  const double width = kMapWidth / static_cast<double>(std::max<int64_t>(1, statistics.heads()));
  for (int64_t layer = 0; layer < statistics.layers(); ++layer) {
    const double y = top + static_cast<double>(layer) * kRowHeight;
    if (layer % 5 == 0 || layer + 1 == statistics.layers()) {
      absl::StrAppend(&svg, SvgText(left - 6, y + kRowHeight - 2, "end", absl::StrCat(layer), " font-size=\"11\""));
    }
    for (int64_t head = 0; head < statistics.heads(); ++head) {
      const ShadowSums& cell = statistics.at(layer, head);
      const double mean = (cell.*value)();
      absl::StrAppendFormat(
          &svg,
          "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"><title>layer %d, KV head %d: %s"
          "</title></rect>\n",
          left + static_cast<double>(head) * width, y, width - 0.6, kRowHeight - 0.6,
          cell.count > 0 ? HeatColor(mean) : "none", layer, head,
          cell.count > 0 ? absl::StrFormat("%.2f %%, %d compactions", 100 * mean, cell.count)
                         : std::string("never compacted"));
    }
  }
  return svg;
}

std::string Scale(double left, double top) {
  std::string svg = SvgText(left - 8, top + 11, "end", "0", " font-size=\"11\"");
  for (int i = 0; i < 100; ++i) {
    absl::StrAppendFormat(&svg, "<rect x=\"%.1f\" y=\"%.1f\" width=\"2.1\" height=\"12\" fill=\"%s\"/>", left + 2 * i,
                          top, HeatColor(i / 99.0));
  }
  return absl::StrCat(svg, "\n", SvgText(left + 208, top + 11, "start", "100 % (and more)", " font-size=\"11\""));
}

}  // namespace

std::string ShadowPlot(const std::string& model,
                       const std::vector<std::pair<std::string, ShadowStatistics>>& settings) {
  double height = kHeader;
  for (const auto& [name, statistics] : settings) {
    height += 2 * kTitle + 14 + static_cast<double>(statistics.layers()) * kRowHeight;
  }
  const double width = 2 * kMargin + 2 * kMapWidth + kGap;
  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" "
      "font-family=\"system-ui, sans-serif\" font-size=\"13\" role=\"img\">\n<style>svg{background:#fff;color:#1a1a1a}"
      "text{fill:currentColor}@media(prefers-color-scheme:dark){svg{background:#16181c;color:#e6e6e6}}</style>\n",
      width, height, width, height);
  absl::StrAppend(&svg, "<title>What compaction loses against the full cache</title>\n",
                  SvgText(kMargin, 24, "start", absl::StrCat("What compaction loses against the full cache: ", model),
                          " font-size=\"15\" font-weight=\"600\""),
                  SvgText(kMargin, 42, "start", "layers down, KV heads across; means over compactions",
                          " font-size=\"12\" opacity=\"0.75\""),
                  Scale(width - kMargin - 310, 32));
  double top = kHeader;
  for (const auto& [name, statistics] : settings) {
    absl::StrAppend(&svg, SvgText(kMargin, top + 18, "start", name, " font-weight=\"600\""));
    top += 2 * kTitle - 10;
    absl::StrAppend(&svg, Map(statistics, kMargin, top, "attention mass lost", &ShadowSums::mean_mass_lost),
                    Map(statistics, kMargin + kMapWidth + kGap, top, "relative error of the attention output",
                        &ShadowSums::mean_output_error));
    top += static_cast<double>(statistics.layers()) * kRowHeight + 24;
  }
  return absl::StrCat(svg, "</svg>\n");
}

}  // namespace cairn
