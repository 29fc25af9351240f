// Accuracy against what is kept, as the R-KV and PyramidKV papers draw it: one line a method, with its 95 % intervals.
#ifndef CAIRN_LAUNCHER_EVAL_PLOT_H_
#define CAIRN_LAUNCHER_EVAL_PLOT_H_

#include <string>

#include "launcher/eval/report.h"

namespace cairn {

// An SVG file that loads nothing, light or dark. The horizontal axis is logarithmic: the kept share in percent where
// the full cache was measured, else the budget.
std::string AccuracyPlot(const EvalReport& report);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_EVAL_PLOT_H_
