// A folder of a test's own, removed when the test ends, and copies of the committed checkpoints to damage in it.
#ifndef CAIRN_TESTS_ENGINE_CONFIG_TEMP_MODEL_H_
#define CAIRN_TESTS_ENGINE_CONFIG_TEMP_MODEL_H_

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "nlohmann/json.hpp"

namespace cairn {

inline std::string CheckpointDir(const std::string& family) {
  return std::string(CAIRN_SOURCE_DIR) + "/tests/data/checkpoints/" + family;
}

inline std::string ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

class TempModel {
 public:
  TempModel() {
    std::string pattern = (std::filesystem::temp_directory_path() / "cairn-model-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  // With the files of tests/data/checkpoints/`family`.
  explicit TempModel(const std::string& family) : TempModel() { std::filesystem::copy(CheckpointDir(family), path_); }
  ~TempModel() { std::filesystem::remove_all(path_); }
  TempModel(const TempModel&) = delete;
  TempModel& operator=(const TempModel&) = delete;

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(File(name), std::ios::binary) << text;
  }
  nlohmann::json ReadJson(const std::string& name) const { return nlohmann::json::parse(ReadText(File(name))); }
  // Changes one JSON file by a function of its value.
  template <typename Change>
  void Edit(const std::string& name, Change change) const {
    nlohmann::json value = ReadJson(name);
    change(value);
    Write(name, value.dump());
  }

 private:
  std::string path_;
};

}  // namespace cairn

#endif  // CAIRN_TESTS_ENGINE_CONFIG_TEMP_MODEL_H_
