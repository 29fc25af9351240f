#include "launcher/eval/plot.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launcher/byte_size.h"
#include "launcher/eval/svg.h"
#include "launcher/eval/sweep.h"

namespace cairn {
namespace {

constexpr double kLeft = 64, kTop = 56, kPlotWidth = 560, kPlotHeight = 360, kLegendWidth = 230, kBottom = 64;
constexpr double kRight = kLeft + kPlotWidth, kBase = kTop + kPlotHeight;

// Okabe and Ito's colours, which people with colour blindness tell apart; a marker for each too.
constexpr const char* kColors[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                   "#e69f00", "#56b4e9", "#7f7f00", "#8c564b"};
constexpr int kMarkers = 5;

struct Point {
  double x = 0;  // percent kept, or slots
  const SettingResult* result = nullptr;
};

struct Series {
  std::string label;
  std::vector<Point> points;  // by x
};

std::string Color(size_t index) { return kColors[index % std::size(kColors)]; }

std::string Marker(size_t index, double x, double y) {
  const std::string fill = absl::StrCat("\" fill=\"", Color(index), "\"/>");
  switch (index % kMarkers) {
    case 0:
      return absl::StrFormat("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4%s", x, y, fill);
    case 1:
      return absl::StrFormat("<rect x=\"%.1f\" y=\"%.1f\" width=\"7.6\" height=\"7.6%s", x - 3.8, y - 3.8, fill);
    case 2:
      return absl::StrFormat("<path d=\"M%.1f %.1fl5 8.6h-10z%s", x, y - 5.4, fill);
    case 3:
      return absl::StrFormat("<path d=\"M%.1f %.1fl5 5-5 5-5-5z%s", x, y - 5, fill);
    default:
      return absl::StrFormat("<path d=\"M%.1f %.1fl5-8.6h-10z%s", x, y + 5.4, fill);
  }
}

std::string Number(double value) {
  return value >= 100 || value == std::floor(value) ? absl::StrFormat("%.0f", value) : absl::StrFormat("%.3g", value);
}

class Plot {
 public:
  explicit Plot(const EvalReport& report) : report_(report), by_share_(report.mean_full_length.has_value()) {
    CollectSeries();
    ScaleAxes();
  }

  std::string Draw() {
    const double height = std::max(kBase + kBottom, kTop + 22.0 * static_cast<double>(series_.size() + 2) + 20);
    svg_ = absl::StrFormat(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" "
        "font-family=\"system-ui, sans-serif\" font-size=\"13\" role=\"img\">\n"
        "<style>svg{background:#fff;color:#1a1a1a}text{fill:currentColor}.grid{stroke:#0002}.axis{stroke:currentColor}"
        "@media(prefers-color-scheme:dark){svg{background:#16181c;color:#e6e6e6}.grid{stroke:#fff3}}</style>\n",
        kRight + kLegendWidth, height, kRight + kLegendWidth, height);
    absl::StrAppend(&svg_, "<title>", XmlEscape(Title()), "</title>\n");
    absl::StrAppend(&svg_, SvgText(kLeft, 24, "start", Title(), " font-size=\"15\" font-weight=\"600\""));
    absl::StrAppend(&svg_, SvgText(kLeft, 42, "start", Subtitle(), " font-size=\"12\" opacity=\"0.75\""));
    Axes();
    FullCache();
    Oracle();
    for (size_t i = 0; i < series_.size(); ++i) Line(i);
    Legend();
    return absl::StrCat(svg_, "</svg>\n");
  }

 private:
  std::string Title() const { return absl::StrCat("Accuracy on ", report_.task, " under KV compression"); }
  std::string Subtitle() const {
    return absl::StrCat(report_.model, ", ", report_.num_questions, " questions",
                        report_.seeds.size() > 1 ? absl::StrCat(" x ", report_.seeds.size(), " seeds") : "",
                        "; bars: 95 % intervals");
  }

  void CollectSeries() {
    std::vector<CompressionConfig> all;
    for (const SettingResult& setting : report_.settings) all.push_back(setting.config);
    std::map<std::string, size_t> index;
    for (const SettingResult& setting : report_.settings) {
      if (!setting.config.enabled()) {
        full_ = &setting;
        continue;
      }
      const std::string label = SeriesLabel(setting.config, all);
      const auto [found, is_new] = index.emplace(label, series_.size());
      if (is_new) series_.push_back({.label = label, .points = {}});
      const double x = by_share_ ? 100 * *setting.kept_share : static_cast<double>(setting.config.budget);
      series_[found->second].points.push_back({x, &setting});
      ticks_.insert(x);
    }
    // The oracle's points are shares of the same lengths.
    for (const OraclePoint& point : report_.oracle) {
      if (by_share_) ticks_.insert(100 * point.kept_share);
    }
    for (Series& series : series_) {
      std::stable_sort(series.points.begin(), series.points.end(),
                       [](const Point& a, const Point& b) { return a.x < b.x; });
    }
  }

  void ScaleAxes() {
    double low = full_ != nullptr ? full_->accuracy.interval.low : 1;
    for (const Series& series : series_) {
      for (const Point& point : series.points) low = std::min(low, point.result->accuracy.interval.low);
    }
    for (const OraclePoint& point : report_.oracle) low = std::min(low, point.interval.low);
    // From zero, unless all lies in the upper half.
    y_low_ = low >= 0.5 ? std::floor(low * 10) / 10 : 0;
    y_low_ = std::min(y_low_, 0.9);
    x_low_ = ticks_.empty() ? 1 : *ticks_.begin() / 1.15;
    x_high_ = ticks_.empty() ? 100 : *ticks_.rbegin() * 1.15;
    if (by_share_) x_high_ = std::max(x_high_, x_low_ * 2);
  }

  double X(double x) const {
    return kLeft + kPlotWidth * std::log(x / x_low_) / std::log(std::max(1.0001, x_high_ / x_low_));
  }
  double Y(double accuracy) const { return kBase - kPlotHeight * (accuracy - y_low_) / (1 - y_low_); }

  void Axes() {
    const double step = y_low_ >= 0.8 ? 0.02 : y_low_ >= 0.5 ? 0.1 : 0.2;
    for (double y = y_low_; y < 1 + step / 2; y += step) {
      const double at = Y(std::min(y, 1.0));
      absl::StrAppendFormat(&svg_, "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", kLeft,
                            at, kRight, at);
      absl::StrAppend(&svg_, SvgText(kLeft - 8, at + 4, "end", absl::StrFormat("%.0f", 100 * y)));
    }
    absl::StrAppendFormat(&svg_, "<path class=\"axis\" fill=\"none\" d=\"M%.1f %.1fV%.1fH%.1f\"/>\n", kLeft, kTop,
                          kBase, kRight);
    double last = -100;
    for (const double x : ticks_) {
      const double at = X(x);
      absl::StrAppendFormat(&svg_, "<line class=\"axis\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", at,
                            kBase, at, kBase + 5);
      if (at - last < 30) continue;  // labels that would touch
      last = at;
      absl::StrAppend(&svg_, SvgText(at, kBase + 20, "middle", Number(x)));
    }
    absl::StrAppend(&svg_, SvgText((kLeft + kRight) / 2, kBase + 44, "middle",
                                   by_share_ ? absl::StrFormat("budget in %% of the mean full length, %.0f tokens",
                                                               *report_.mean_full_length)
                                             : std::string("budget in slots")));
    absl::StrAppendFormat(&svg_, "<g transform=\"rotate(-90 18 %.1f)\">%s</g>\n", (kTop + kBase) / 2,
                          SvgText(18, (kTop + kBase) / 2, "middle", "accuracy in %"));
  }

  void FullCache() {
    if (full_ == nullptr) return;
    const Interval& interval = full_->accuracy.interval;
    absl::StrAppendFormat(
        &svg_, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"currentColor\" opacity=\"0.08\"/>\n",
        kLeft, Y(interval.high), kPlotWidth, Y(std::max(interval.low, y_low_)) - Y(interval.high));
    absl::StrAppendFormat(&svg_,
                          "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"currentColor\" "
                          "stroke-dasharray=\"6 4\"><title>%s</title></line>\n",
                          kLeft, Y(full_->accuracy.value()), kRight, Y(full_->accuracy.value()),
                          XmlEscape(Tip("full cache", *full_)));
  }

  bool has_oracle() const { return by_share_ && !report_.oracle.empty(); }

  void Oracle() {
    if (!has_oracle()) return;
    std::string path;
    for (const OraclePoint& point : report_.oracle) {
      const double x = X(100 * point.kept_share);
      absl::StrAppendFormat(&path, "%s%.1f %.1f", path.empty() ? "M" : "L", x, Y(point.accuracy));
      absl::StrAppendFormat(
          &svg_,
          "<g fill=\"none\" stroke=\"currentColor\"><title>%s</title><path opacity=\"0.5\" d=\"M%.1f "
          "%.1fV%.1f\"/><circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/></g>\n",
          XmlEscape(absl::StrFormat("oracle, %s %% kept: %.1f %% (%.1f to %.1f)", Number(100 * point.kept_share),
                                    100 * point.accuracy, 100 * point.interval.low, 100 * point.interval.high)),
          x, Y(point.interval.high), Y(std::max(point.interval.low, y_low_)), x, Y(point.accuracy));
    }
    absl::StrAppendFormat(&svg_, "<path fill=\"none\" stroke=\"currentColor\" stroke-dasharray=\"2 3\" d=\"%s\"/>\n",
                          path);
  }

  static std::string Tip(const std::string& label, const SettingResult& result) {
    return absl::StrFormat("%s%s: %.1f %% (%.1f to %.1f), %d of %d; KV %s", label,
                           result.config.enabled() ? absl::StrCat(", budget ", result.config.budget) : "",
                           100 * result.accuracy.value(), 100 * result.accuracy.interval.low,
                           100 * result.accuracy.interval.high, result.accuracy.right, result.accuracy.total,
                           FormatBytes(result.mean_kv_bytes));
  }

  void Line(size_t index) {
    const Series& series = series_[index];
    // Side by side, so that the bars of one budget do not hide each other.
    const double shift = 4 * (static_cast<double>(index) - (static_cast<double>(series_.size()) - 1) / 2);
    const auto x_of = [&](const Point& point) { return X(point.x) + std::clamp(shift, -16.0, 16.0); };
    std::string path;
    for (const Point& point : series.points) {
      absl::StrAppendFormat(&path, "%s%.1f %.1f", path.empty() ? "M" : "L", x_of(point),
                            Y(point.result->accuracy.value()));
    }
    const bool dashed = index >= std::size(kColors);
    absl::StrAppendFormat(&svg_, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s d=\"%s\"/>\n", Color(index),
                          dashed ? " stroke-dasharray=\"5 3\"" : "", path);
    for (const Point& point : series.points) {
      const double x = x_of(point);
      const Interval& interval = point.result->accuracy.interval;
      const double high = Y(interval.high), low = Y(std::max(interval.low, y_low_));
      absl::StrAppendFormat(&svg_,
                            "<g><title>%s</title><path fill=\"none\" stroke=\"%s\" opacity=\"0.6\" d=\"M%.1f %.1fV%.1fM"
                            "%.1f %.1fh6M%.1f %.1fh6\"/>%s</g>\n",
                            XmlEscape(Tip(series.label, *point.result)), Color(index), x, high, low, x - 3, high, x - 3,
                            low, Marker(index, x, Y(point.result->accuracy.value())));
    }
  }

  void Legend() {
    double y = kTop + 10;
    const double x = kRight + 22;
    if (full_ != nullptr) {
      absl::StrAppendFormat(&svg_,
                            "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"currentColor\" "
                            "stroke-dasharray=\"6 4\"/>\n",
                            x, y, x + 26, y);
      absl::StrAppend(&svg_, SvgText(x + 34, y + 4, "start", "full cache"));
      y += 22;
    }
    if (has_oracle()) {
      absl::StrAppendFormat(
          &svg_,
          "<g fill=\"none\" stroke=\"currentColor\"><path stroke-dasharray=\"2 3\" d=\"M%.1f %.1fh26\"/>"
          "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/></g>\n",
          x, y, x + 13, y);
      absl::StrAppend(&svg_, SvgText(x + 34, y + 4, "start", "oracle"));
      y += 22;
    }
    for (size_t i = 0; i < series_.size(); ++i, y += 22) {
      absl::StrAppendFormat(
          &svg_, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"2\"%s/>", x, y,
          x + 26, y, Color(i), i >= std::size(kColors) ? " stroke-dasharray=\"5 3\"" : "");
      absl::StrAppend(&svg_, Marker(i, x + 13, y), "\n", SvgText(x + 34, y + 4, "start", series_[i].label));
    }
  }

  const EvalReport& report_;
  bool by_share_;
  const SettingResult* full_ = nullptr;
  std::vector<Series> series_;
  std::set<double> ticks_;
  double y_low_ = 0, x_low_ = 1, x_high_ = 100;
  std::string svg_;
};

}  // namespace

std::string AccuracyPlot(const EvalReport& report) { return Plot(report).Draw(); }

}  // namespace cairn
