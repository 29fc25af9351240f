// Where the tests of engine/text find their data, and how they read it.
#ifndef CAIRN_TESTS_ENGINE_TEXT_TEST_DATA_H_
#define CAIRN_TESTS_ENGINE_TEXT_TEST_DATA_H_

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>

#include "engine/text/tokenizer.h"
#include "gtest/gtest.h"

namespace cairn {

inline std::string SourceDir() { return CAIRN_SOURCE_DIR; }
inline std::string TextDataDir() { return SourceDir() + "/tests/data/text"; }

inline std::string SharedDir() {
  const char* dir = std::getenv("CAIRN_SHARED_DIR");
  return dir != nullptr ? dir : SourceDir() + "/../shared";
}

// A directory as tools/tokenizer_reference.py names it.
inline std::string ResolveDirectory(const std::string& name) {
  if (name.rfind("shared:", 0) == 0) return SharedDir() + "/" + name.substr(7);
  return name.front() == '/' ? name : SourceDir() + "/" + name;
}

inline std::unique_ptr<Tokenizer> LoadTokenizer(const std::string& directory) {
  auto tokenizer = Tokenizer::Load(directory);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

inline std::unique_ptr<Tokenizer> LoadSmallTokenizer(const std::string& name) {
  return LoadTokenizer(TextDataDir() + "/tokenizers/" + name);
}

inline std::string ReadFile(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  EXPECT_TRUE(stream) << path;
  std::ostringstream text;
  text << stream.rdbuf();
  return std::move(text).str();
}

// A directory of its own for one test, removed with it.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = std::filesystem::temp_directory_path() / "cairn_text_XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ + "/" + name, std::ios::binary) << text;
  }

 private:
  std::string path_;
};

}  // namespace cairn

#endif  // CAIRN_TESTS_ENGINE_TEXT_TEST_DATA_H_
