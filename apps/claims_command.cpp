// tandem claims: what two quiz pages teach about batch norm, examined on this machine.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cctype>
#include <nlohmann/json.hpp>

#include "claims.h"
#include "claims_page.h"
#include "commands.h"
#include "options.h"
#include "run_dir.h"
#include "signals.h"
#include "table.h"
#include "tandem/core/file.h"
#include "terminal.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  ClaimsSettings claims;
  TrainSettings data;  // --data, --dataset, --device, --threads
  OutputOptions output;
  std::string out;
  bool force = false;
};

// "  says      Batch norm keeps ..." in lines of 80 characters.
std::string paragraph(const std::string& label, const std::string& text) {
  constexpr size_t indent = 12;
  std::string lines = wrap(text, 80, indent);
  const std::string head = "  " + label;
  lines.replace(0, head.size(), head);
  return lines;
}

std::string to_text(const Claim& claim, bool in_full) {
  std::string text = styled(stdout, Style::bold, fmt::format("{}  {}", claim.id, name_of(claim.verdict))) + "\n";
  text += paragraph("says", claim.statement) + paragraph("measured", claim.measured) + paragraph("so", claim.why);
  if (!in_full) return text + "\n";
  Table table{{"", "measured"}, {}};
  for (const Measurement& m : claim.measurements) table.rows.push_back({m.what, m.shown});
  return text + "\n" + table.to_string() + "\n";
}

Json to_json(const Claim& claim) {
  Json measurements = Json::array();
  for (const Measurement& m : claim.measurements)
    measurements.push_back({{"what", m.what}, {"value", m.value}, {"shown", m.shown}});
  return {{"id", claim.id},
          {"says", claim.statement},
          {"measured", claim.measured},
          {"verdict", name_of(claim.verdict)},
          {"why", claim.why},
          {"measurements", measurements}};
}

// Claims go to the terminal as they are ready.
class Watcher : public ClaimsObserver {
 public:
  Watcher(bool print_text, bool in_full) : print_text_(print_text), in_full_(in_full) {}
  void on_claim(const Claim& claim) override {
    show_status("");
    if (print_text_) print(to_text(claim, in_full_));
  }
  void progress(const std::string& what, int64_t done, int64_t of) override {
    if (!is_quiet() && is_terminal(stderr)) show_status(fmt::format("{}: {} of {} runs", what, done, of));
  }
  bool should_stop() override { return signals_.stopped(); }
  int signal() const { return signals_.signal(); }

 private:
  bool print_text_, in_full_;
  StopOnSignal signals_;
};

int run(Options options) {
  for (std::string& id : options.claims.ids)
    for (char& c : id) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  use_device(options.data);
  options.claims.threads = options.data.threads;
  std::optional<Splits> data;
  if (needs_training(options.claims.ids)) {
    data = load_data(options.data);
    if (!data->notice.empty()) notice(data->notice);
  }
  std::optional<RunDir> dir;  // some claims are looked up; all of them, or --out, make a run
  if (options.claims.ids.empty() || !options.out.empty()) dir.emplace(options.out, "claims", "claims", options.force);
  Watcher watcher(!options.output.json, !options.claims.ids.empty());
  const std::vector<Claim> claims = examine_claims(options.claims, data ? &*data : nullptr, watcher);
  show_status("");

  Json json = {{"tool", "tandem"},
               {"command", "claims"},
               {"status", watcher.signal() ? "interrupted" : "finished"},
               {"fast", options.claims.fast},
               {"claims", Json::array()}};
  if (data) json["dataset"] = data->train.name;
  for (const Claim& claim : claims) json["claims"].push_back(to_json(claim));
  if (dir) {
    if (data) json["environment"] = environment(*data);
    dir->write_json("RESULT.json", json);
    write_file(dir->file("report.html"), claims_page(claims, data ? data->train.name : "", options.claims.fast));
    dir->keep();
    json["out"] = dir->path();
  }
  if (options.output.json)
    print(json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
  else if (dir)
    print(fmt::format("report: {}\n", dir->file("report.html")));
  return watcher.signal() ? 128 + watcher.signal() : kOk;
}

}  // namespace

void add_claims(CLI::App& program, Action& action) {
  auto o = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("claims", "Examine ten things taught about batch norm, and judge each.");
  command->footer(
      "  tandem claims                    all ten, and a page with the pictures (under 5 minutes)\n"
      "  tandem claims --fast             fewer seeds and steps (under 30 seconds)\n"
      "  tandem claims TF4 PT1            these in full\n");
  command->add_option("ID", o->claims.ids, "TF1 to TF5, PT1 to PT5; all if none is given")->type_name("ID ...");
  command->add_flag("--fast", o->claims.fast, "fewer seeds and steps where networks are trained");
  add_data_dir(*command, o->data);
  add_integer(*command, "-j,--threads", o->data.threads, 0, "0: the cores this process may use", 1024);
  add_text(*command, "-o,--out", o->out, "DIR", "the folder for RESULT.json and report.html")
      ->default_str("runs/TIME_claims; none with IDs");
  command->add_flag("--force", o->force, "replace an earlier run in --out");
  add_output_options(*command, o->output);
  command->callback([=, &action] { action = [o] { return run(*o); }; });
}

}  // namespace tandem
