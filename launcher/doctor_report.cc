#include "launcher/doctor_report.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/scheduler/wire.h"
#include "launcher/exit_codes.h"
#include "launcher/topology.h"

namespace cairn {
namespace {

const char* VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return "ok";
    case Verdict::kWarn:
      return "warn";
    case Verdict::kFail:
      return "FAIL";
  }
  return "?";
}

bool Same(const Finding& a, const Finding& b) {
  return a.check == b.check && a.verdict == b.verdict && a.detail == b.detail && a.fix == b.fix;
}

// "0-3,6"
std::string Runs(const std::vector<int>& ranks) {
  std::string text;
  for (size_t i = 0; i < ranks.size();) {
    size_t end = i + 1;
    while (end < ranks.size() && ranks[end] == ranks[end - 1] + 1) ++end;
    absl::StrAppend(&text, text.empty() ? "" : ",", ranks[i]);
    if (end - i > 1) absl::StrAppend(&text, "-", ranks[end - 1]);
    i = end;
  }
  return text;
}

std::string Where(const std::vector<int>& ranks, const std::vector<std::string>& hosts) {
  if (ranks.size() == hosts.size()) return hosts.size() == 1 ? hosts[0] : "all ranks";
  std::vector<std::string> names;
  for (int rank : ranks) {
    if (names.empty() || names.back() != hosts[rank]) names.push_back(hosts[rank]);
  }
  std::string text = absl::StrCat(ranks.size() == 1 ? "rank " : "ranks ", Runs(ranks), " (", names[0]);
  if (names.size() > 1) absl::StrAppend(&text, " .. ", names.back());
  return absl::StrCat(text, ")");
}

}  // namespace

std::string EncodeFindings(const std::vector<Finding>& findings) {
  WireWriter out;
  out.Put<uint64_t>(findings.size());
  for (const Finding& finding : findings) {
    out.PutString(finding.check);
    out.Put(finding.verdict);
    out.PutString(finding.detail);
    out.PutString(finding.fix);
    out.Put(finding.among_ranks);
  }
  return out.Take();
}

std::vector<Finding> DecodeFindings(const std::string& bytes) {
  WireReader in(bytes);
  std::vector<Finding> findings(in.Get<uint64_t>());
  for (Finding& finding : findings) {
    finding.check = in.GetString();
    finding.verdict = in.Get<Verdict>();
    finding.detail = in.GetString();
    finding.fix = in.GetString();
    finding.among_ranks = in.Get<bool>();
  }
  return findings;
}

std::vector<ReportLine> MergeFindings(const std::vector<std::vector<Finding>>& findings,
                                      const std::vector<std::string>& hosts) {
  struct Merged {
    Finding finding;
    std::vector<int> ranks;
  };
  std::vector<Merged> merged;
  for (size_t rank = 0; rank < findings.size(); ++rank) {
    for (const Finding& finding : findings[rank]) {
      auto found =
          std::find_if(merged.begin(), merged.end(), [&](const Merged& m) { return Same(m.finding, finding); });
      if (found == merged.end()) {
        // Beside the other findings of its check.
        const auto last = std::find_if(merged.rbegin(), merged.rend(),
                                       [&](const Merged& m) { return m.finding.check == finding.check; });
        found = merged.insert(last == merged.rend() ? merged.end() : last.base(), {finding, {}});
      }
      found->ranks.push_back(static_cast<int>(rank));
    }
  }
  std::vector<ReportLine> lines;
  for (const Merged& m : merged) lines.push_back({m.finding, Where(m.ranks, hosts)});
  return lines;
}

std::string ReportTable(const std::vector<ReportLine>& lines) {
  std::vector<std::vector<std::string>> rows = {{"", "check", "where", "found"}};
  for (const ReportLine& line : lines) {
    const Finding& finding = line.finding;
    rows.push_back({VerdictName(finding.verdict), finding.check, line.where, finding.detail});
    if (!finding.fix.empty()) rows.push_back({"", "", "", absl::StrCat("  fix: ", finding.fix)});
  }
  return FormatTable(rows);
}

nlohmann::ordered_json ReportJson(const std::vector<ReportLine>& lines) {
  nlohmann::ordered_json checks = nlohmann::ordered_json::array();
  for (const ReportLine& line : lines) {
    nlohmann::ordered_json entry = {{"check", line.finding.check},
                                    {"verdict", absl::AsciiStrToLower(VerdictName(line.finding.verdict))},
                                    {"where", line.where},
                                    {"found", line.finding.detail}};
    if (!line.finding.fix.empty()) entry["fix"] = line.finding.fix;
    checks.push_back(std::move(entry));
  }
  const int code = ReportExitCode(lines);
  return {{"ok", code == kExitOk}, {"exit_code", code}, {"checks", std::move(checks)}};
}

int ReportExitCode(const std::vector<ReportLine>& lines) {
  int code = kExitOk;
  for (const ReportLine& line : lines) {
    if (line.finding.verdict != Verdict::kFail) continue;
    if (line.finding.among_ranks) return kExitRankFailed;
    code = kExitBadInput;
  }
  return code;
}

}  // namespace cairn
