#include "launcher/command_line.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/flags/reflection.h"
#include "absl/strings/str_cat.h"
#include "engine/config/run_config_reader.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"
#include "launcher/exit_codes.h"
#include "launcher/nearest_name.h"

namespace cairn {
namespace {

std::string Underscored(std::string name) {
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

absl::CommandLineFlag& FlagNamed(const std::string& name) {
  absl::CommandLineFlag* flag = absl::FindCommandLineFlag(name);
  CAIRN_CHECK(flag != nullptr, "flag ", name, " is listed and not defined");
  return *flag;
}

bool IsBoolean(const std::string& name) { return FlagNamed(name).IsOfType<bool>(); }

template <typename Visit>
void ForEachFlag(const Subcommand& subcommand, Visit visit) {
  for (const FlagGroup* group : subcommand.groups) {
    for (const FlagEntry& entry : group->flags) visit(entry);
  }
}

// The ABSL_FLAG's name for `text` ("tp", "tensor-parallel-size"), or "".
std::string Resolve(const Subcommand& subcommand, const std::string& text) {
  const std::string wanted = Underscored(text);
  std::string found;
  ForEachFlag(subcommand, [&](const FlagEntry& entry) {
    if (wanted == entry.spelled() || (*entry.alias != '\0' && wanted == entry.alias)) found = entry.name;
  });
  return found;
}

const Subcommand* OwnerOf(const std::string& name, const std::vector<Subcommand>& all) {
  for (const Subcommand& subcommand : all) {
    if (!Resolve(subcommand, name).empty()) return &subcommand;
  }
  return nullptr;
}

std::string Suggestion(const Subcommand& subcommand, const std::string& name) {
  std::vector<std::string> names;
  ForEachFlag(subcommand, [&](const FlagEntry& entry) { names.push_back(FlagSpelling(entry.spelled())); });
  return NearestName(FlagSpelling(name), names);
}

absl::Status UnknownFlag(const Subcommand& subcommand, const std::string& argument, const std::string& name,
                         const std::vector<Subcommand>& all) {
  if (const Subcommand* owner = OwnerOf(name, all)) {
    return UsageError(
        absl::StrCat(argument, " is a flag of `cairn ", owner->name, "`, not of `cairn ", subcommand.name, "`"));
  }
  const std::string nearest = Suggestion(subcommand, name);
  return UsageError(absl::StrCat("unknown flag ", argument, nearest.empty() ? "" : ", did you mean --", nearest,
                                 nearest.empty() ? "" : "?", "; `cairn ", subcommand.name, " --help` lists them"));
}

// What a flag of that type takes, for those whose parser does not say.
const char* ExpectedBy(const absl::CommandLineFlag& flag) {
  if (flag.IsOfType<bool>()) return "expected true or false";
  if (flag.IsOfType<int32_t>()) return "expected a whole number of 32 bits";
  if (flag.IsOfType<int64_t>()) return "expected a whole number";
  return "expected a number";
}

absl::Status Set(const std::string& name, const std::string& value, const std::string& where) {
  absl::CommandLineFlag& flag = FlagNamed(name);
  std::string error;
  if (flag.ParseFrom(value, &error)) return absl::OkStatus();
  // absl: "Illegal value 'x' specified for flag 'y'", then "; " and what the type's own parser said.
  const size_t own = error.find("; ");
  return UsageError(
      absl::StrCat(where, "'", value, "': ", own == std::string::npos ? ExpectedBy(flag) : error.substr(own + 2)));
}

}  // namespace

std::string FlagSpelling(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments, const Subcommand& subcommand,
                                             const std::vector<Subcommand>& all) {
  CommandLine result;
  result.subcommand = &subcommand;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--help" || argument == "-h" || argument == "-help") {
      result.help = true;
      continue;
    }
    if (argument.size() < 2 || argument[0] != '-') {
      return UsageError(absl::StrCat("unexpected argument '", argument, "'",
                                     i > 0 ? absl::StrCat(" after ", arguments[i - 1]) : "",
                                     ": settings are flags, `cairn ", subcommand.name, " --help` lists them"));
    }
    const size_t equals = argument.find('=');
    const std::string dashed = argument.substr(0, equals);
    const std::string text = dashed.substr(dashed[1] == '-' ? 2 : 1);
    std::optional<std::string> value;
    if (equals != std::string::npos) value = argument.substr(equals + 1);

    std::string name = Resolve(subcommand, text);
    if (name.empty() && !value.has_value() && Underscored(text).rfind("no_", 0) == 0) {
      name = Resolve(subcommand, text.substr(3));
      if (!name.empty() && !IsBoolean(name)) name.clear();
      if (!name.empty()) value = "false";
    }
    if (name.empty()) return UnknownFlag(subcommand, dashed, text, all);
    if (!value.has_value() && IsBoolean(name)) value = "true";
    if (!value.has_value()) {
      // A following flag is no value: `--model --dtype float32` is a forgotten directory. (A lone "-" is standard
      // input.)
      if (i + 1 == arguments.size() || arguments[i + 1].rfind("--", 0) == 0) {
        return UsageError(absl::StrCat(dashed, " needs a value (", dashed, "=VALUE if it begins with --)"));
      }
      value = arguments[++i];
    }
    CAIRN_RETURN_IF_ERROR(Set(name, *value, absl::StrCat(dashed, "=")));
    result.given.insert(name);
  }
  return result;
}

namespace {

// Keys of the block kv_cache_compression_config, named as vLLM's ports of R-KV name them, to flags.
constexpr char kCompressionBlock[] = "kv_cache_compression_config.";
const std::pair<const char*, const char*> kCompressionKeys[] = {{"algorithm", "kv_compression"},
                                                                {"buffer_size", "kv_buffer"},
                                                                {"window_size", "kv_window"},
                                                                {"mix_lambda", "kv_lambda"},
                                                                {"similarity_threshold", "kv_threshold"},
                                                                {"kernel_size", "kv_kernel"},
                                                                {"num_sinks", "kv_sinks"}};

std::string FlagOfConfigKey(const std::string& key) {
  if (key.rfind(kCompressionBlock, 0) != 0) return key;
  const std::string inner = key.substr(sizeof kCompressionBlock - 1);
  for (const auto& [name, flag] : kCompressionKeys) {
    if (inner == name) return flag;
  }
  return absl::StrCat("kv_", inner);
}

}  // namespace

absl::Status ApplyConfigFile(const std::string& path, const CommandLine& command_line,
                             const std::vector<Subcommand>& all) {
  absl::StatusOr<std::vector<RunConfigEntry>> entries = ReadRunConfig(path);
  if (!entries.ok()) return WithExitCode(entries.status(), kExitUsage);
  std::map<std::string, std::string> set_by;  // flag to the key that set it
  for (const RunConfigEntry& entry : *entries) {
    const std::string where = absl::StrCat("--config ", path, ":", entry.line, ": ");
    const std::string key = FlagOfConfigKey(entry.key);
    if (entry.key == "config") return UsageError(absl::StrCat(where, "a config file cannot name another"));
    const std::string name = Resolve(*command_line.subcommand, key);
    if (name.empty() && OwnerOf(key, all) != nullptr) continue;
    if (name.empty()) {
      const std::string nearest = Underscored(Suggestion(*command_line.subcommand, key));
      return UsageError(absl::StrCat(where, "unknown key ", entry.key, nearest.empty() ? "" : ", did you mean ",
                                     nearest, nearest.empty() ? "" : "?"));
    }
    if (const auto [other, is_new] = set_by.emplace(name, entry.key); !is_new) {
      return UsageError(absl::StrCat(where, "key ", entry.key, " says again what ", other->second, " has said"));
    }
    if (command_line.given.contains(name)) continue;
    CAIRN_RETURN_IF_ERROR(Set(name, entry.value, absl::StrCat(where, entry.key, ": ")));
  }
  return absl::OkStatus();
}

std::vector<std::pair<std::string, std::string>> Settings(const Subcommand& subcommand) {
  std::vector<std::pair<std::string, std::string>> settings;
  ForEachFlag(subcommand, [&](const FlagEntry& entry) {
    settings.emplace_back(entry.spelled(), FlagNamed(entry.name).CurrentValue());
  });
  return settings;
}

namespace {

constexpr size_t kHelpColumn = 38, kHelpWidth = 118;

// `text` in lines that start at kHelpColumn.
std::string Wrapped(const std::string& text) {
  std::string out, line;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    if (!line.empty() && kHelpColumn + line.size() + 1 + word.size() > kHelpWidth) {
      absl::StrAppend(&out, line, "\n", std::string(kHelpColumn, ' '));
      line.clear();
    }
    absl::StrAppend(&line, line.empty() ? "" : " ", word);
    begin = end + 1;
  }
  return absl::StrCat(out, line, "\n");
}

std::string FlagHelp(const FlagEntry& entry) {
  const absl::CommandLineFlag& flag = FlagNamed(entry.name);
  std::string left = "  ";
  if (*entry.alias != '\0') absl::StrAppend(&left, "-", entry.alias, ", ");
  absl::StrAppend(&left, "--", FlagSpelling(entry.spelled()), *entry.value == '\0' ? "" : " ", entry.value);
  if (left.size() + 2 > kHelpColumn) {
    absl::StrAppend(&left, "\n", std::string(kHelpColumn, ' '));
  } else {
    left.resize(kHelpColumn, ' ');
  }
  const std::string initial = flag.DefaultValue();
  return absl::StrCat(left,
                      Wrapped(absl::StrCat(flag.Help(), initial.empty() ? "" : absl::StrCat(" [", initial, "]"))));
}

}  // namespace

std::string SubcommandHelp(const Subcommand& subcommand) {
  std::string help = absl::StrCat("cairn ", subcommand.name, ": ", subcommand.summary, "\n\nUsage: cairn ",
                                  subcommand.name, " ", subcommand.synopsis, "\n       mpirun -np $((TP*PP*DP)) cairn ",
                                  subcommand.name, " -tp TP -pp PP -dp DP ...\n");
  for (const FlagGroup* group : subcommand.groups) {
    absl::StrAppend(&help, "\n", group->title, "\n");
    for (const FlagEntry& entry : group->flags) absl::StrAppend(&help, FlagHelp(entry));
  }
  absl::StrAppend(
      &help,
      "\n--flag value and --flag=value are the same, and so are dashes and underscores; --no-flag switches a "
      "boolean off.\n[default in brackets]\n");
  return help;
}

std::string CommandHelp(const std::vector<Subcommand>& all) {
  std::string help = "cairn: distributed LLM inference over tensor-, pipeline- and data-parallel MPI ranks\n\n";
  for (const Subcommand& subcommand : all) {
    absl::StrAppend(&help, "  cairn ", subcommand.name, std::string(12 - std::string_view(subcommand.name).size(), ' '),
                    subcommand.summary, "\n");
  }
  absl::StrAppend(
      &help, "\n`cairn SUBCOMMAND --help` lists its flags, `cairn --version` says what was built.\n\n",
      "Exit codes: 0 ok, 10 some requests failed, 64 usage, 65 bad input, 70 a rank failed, 74 output I/O,\n",
      "            130 and 143 interrupted\n");
  return help;
}

}  // namespace cairn
