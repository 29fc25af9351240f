// What was built: for --version and doctor.
#ifndef CAIRN_LAUNCHER_BUILD_INFO_H_
#define CAIRN_LAUNCHER_BUILD_INFO_H_

#include <string>

namespace cairn {

// "cairn 0.1.0 (release, g++ 12.2.0)"
std::string BuildInfo();

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_BUILD_INFO_H_
