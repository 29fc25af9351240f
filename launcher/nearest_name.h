// "Did you mean": the known name closest to a mistyped one.
#ifndef CAIRN_LAUNCHER_NEAREST_NAME_H_
#define CAIRN_LAUNCHER_NEAREST_NAME_H_

#include <string>
#include <string_view>
#include <vector>

namespace cairn {

// The candidate with the smallest edit distance (a swap of neighbours counts as one edit), or "" where none is near:
// more than a third of the letters differ. Of equals, the first.
std::string NearestName(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_NEAREST_NAME_H_
