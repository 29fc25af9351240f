#include "launcher/eval/eval_directory.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"
#include "launcher/batch/json_limits.h"
#include "launcher/exit_codes.h"

namespace cairn {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

constexpr char kManifest[] = "manifest.json", kSessions[] = "sessions.jsonl", kAnswers[] = "answers";

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

absl::Status Damaged(absl::string_view where, absl::string_view what) {
  return WithExitCode(absl::InvalidArgumentError(absl::StrCat(where, ": ", what)), kExitBadInput);
}

// Whole lines of JSON, and their bytes.
absl::StatusOr<EvalDirectory::Answers> ReadJsonLines(const std::string& path) {
  EvalDirectory::Answers result;
  const std::string content = ReadAll(path);
  int64_t number = 0;
  for (size_t at = 0; at < content.size();) {
    const size_t newline = content.find('\n', at);
    if (newline == std::string::npos) break;  // torn
    absl::StatusOr<json> value = ParseBoundedJson(content.substr(at, newline - at));
    ++number;
    at = newline + 1;
    if (!value.ok() || !value->is_object()) {
      if (at == content.size()) break;  // the last line: what a power failure left
      return Damaged(absl::StrCat(path, ":", number),
                     "not a record: delete the file (its answers are computed again), or give --overwrite");
    }
    result.records.push_back(*std::move(value));
    result.bytes = static_cast<int64_t>(at);
  }
  return result;
}

}  // namespace

std::string IndentedJson(const ordered_json& json) {
  return json.dump(2, ' ', /*ensure_ascii=*/false, ordered_json::error_handler_t::replace);
}

std::string EvalDirectory::PathOf(const std::string& name) const { return absl::StrCat(path_, "/", name); }

std::string EvalDirectory::AnswersPath(const std::string& setting) const {
  return absl::StrCat(path_, "/", kAnswers, "/", setting, ".jsonl");
}

absl::StatusOr<std::unique_ptr<EvalDirectory>> EvalDirectory::Open(const std::string& path,
                                                                   const ordered_json& manifest, bool resume,
                                                                   bool overwrite) {
  std::unique_ptr<EvalDirectory> directory(new EvalDirectory(path));
  std::error_code error;
  fs::create_directories(directory->PathOf(kAnswers), error);
  if (error) {
    return WithExitCode(absl::UnavailableError(absl::StrCat("--output-dir ", path, ": ", error.message())),
                        kExitOutput);
  }
  CAIRN_ASSIGN_OR_RETURN(directory->session_file_,
                         LineFile::Open(directory->PathOf(kSessions), "--output-dir", /*overwrite=*/true, -1));
  const bool used = fs::exists(directory->PathOf(kManifest), error);
  if (used && !resume && !overwrite) {
    return UsageError(absl::StrCat("--output-dir ", path,
                                   " holds an evaluation already: --resume goes on with it, --overwrite deletes its "
                                   "answers"));
  }
  if (used && resume) {
    CAIRN_RETURN_IF_ERROR(directory->CheckManifest(manifest));
  } else {
    CAIRN_RETURN_IF_ERROR(directory->DeleteAnswers());
    CAIRN_RETURN_IF_ERROR(directory->WriteJson(kManifest, manifest));
  }
  CAIRN_RETURN_IF_ERROR(directory->ReadSessions());
  return directory;
}

absl::Status EvalDirectory::CheckManifest(const ordered_json& manifest) const {
  const std::string path = PathOf(kManifest);
  const absl::StatusOr<json> before = ParseBoundedJson(ReadAll(path));
  if (!before.ok() || !before->is_object()) return Damaged(path, "not a manifest: give --overwrite to begin anew");
  for (const auto& [name, value] : manifest.items()) {
    const json was = before->contains(name) ? (*before)[name] : json();
    if (was == json(value)) continue;
    return UsageError(absl::StrCat("--resume: the answers in ", path_, " were made with ", name, " = ", was.dump(),
                                   ", now it is ", value.dump(),
                                   ": choose another --output-dir, or --overwrite to delete them"));
  }
  return absl::OkStatus();
}

absl::Status EvalDirectory::DeleteAnswers() const {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(PathOf(kAnswers), error)) {
    if (entry.path().extension() == ".jsonl" || entry.path().extension() == ".json") fs::remove(entry.path(), error);
    if (error) break;
  }
  if (!error) return session_file_->Begin();
  return WithExitCode(absl::UnavailableError(absl::StrCat(path_, ": ", error.message())), kExitOutput);
}

absl::Status EvalDirectory::ReadSessions() {
  CAIRN_ASSIGN_OR_RETURN(const Answers lines, ReadJsonLines(PathOf(kSessions)));
  for (const json& line : lines.records) {
    sessions_.push_back({.setting = line.value("setting", ""),
                         .seconds = line.value("seconds", 0.0),
                         .generated_tokens = line.value("generated_tokens", int64_t{0}),
                         .peak_running = line.value("peak_running", int64_t{0}),
                         .preemptions = line.value("preemptions", int64_t{0}),
                         .kv_cache_bytes = line.value("kv_cache_bytes", int64_t{0})});
  }
  return session_file_->Continue(lines.bytes);
}

absl::StatusOr<EvalDirectory::Answers> EvalDirectory::ReadAnswers(const std::string& setting) const {
  return ReadJsonLines(AnswersPath(setting));
}

absl::StatusOr<std::unique_ptr<LineFile>> EvalDirectory::OpenAnswers(const std::string& setting, int64_t bytes) const {
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<LineFile> file,
                         LineFile::Open(AnswersPath(setting), "--output-dir", /*overwrite=*/true, -1));
  CAIRN_RETURN_IF_ERROR(file->Continue(bytes));
  return file;
}

absl::Status EvalDirectory::AddSession(const EvalSession& session) {
  sessions_.push_back(session);
  const ordered_json line = {{"setting", session.setting},
                             {"seconds", session.seconds},
                             {"generated_tokens", session.generated_tokens},
                             {"peak_running", session.peak_running},
                             {"preemptions", session.preemptions},
                             {"kv_cache_bytes", session.kv_cache_bytes}};
  return session_file_->Write(line.dump());
}

absl::StatusOr<std::optional<json>> EvalDirectory::ReadJson(const std::string& name) const {
  std::error_code error;
  if (!fs::exists(PathOf(name), error)) return std::nullopt;
  absl::StatusOr<json> value = ParseBoundedJson(ReadAll(PathOf(name)));
  if (value.ok()) return std::optional<json>(*std::move(value));
  return Damaged(PathOf(name), "not JSON: delete the file, or give --overwrite");
}

absl::Status EvalDirectory::WriteJson(const std::string& name, const ordered_json& json) const {
  return WriteFile(name, IndentedJson(json));
}

absl::Status EvalDirectory::WriteFile(const std::string& name, const std::string& content) const {
  CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<LineFile> file, LineFile::Open(PathOf(name), "--output-dir", true, -1));
  return file->WriteAll(content);
}

}  // namespace cairn
