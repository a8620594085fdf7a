#include "help.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <sstream>

#include "exit_code.h"
#include "tandem/core/text.h"

namespace tandem {
namespace {

constexpr size_t kWidth = 80, kColumn = 28;  // of the text; where explanations begin

std::string full_name(const CLI::App& app) {
  return app.get_parent() ? full_name(*app.get_parent()) + " " + app.get_name() : app.get_name();
}

// `left`, then `text` from kColumn on, wrapped at kWidth.
std::string entry(const std::string& left, const std::string& text) {
  std::string out, line = "  " + left;
  if (line.size() + 1 >= kColumn) {
    out = line + "\n";
    line.clear();
  }
  line.resize(kColumn, ' ');
  std::istringstream words(text);
  bool first = true;
  for (std::string word; words >> word; first = false) {
    if (!first && line.size() + 1 + word.size() > kWidth) {
      out += line + "\n";
      line.assign(kColumn, ' ');
      first = true;
    }
    line += (first ? "" : " ") + word;
  }
  return out + line + "\n";
}

// "-b, --batch-size N": further long names are aliases and not shown.
std::string flag_name(const CLI::Option& option) {
  if (option.get_positional()) return option.get_name(true);
  std::string name = option.get_snames().empty() ? "    " : "-" + option.get_snames()[0];
  if (!option.get_lnames().empty()) {
    name += (option.get_snames().empty() ? "--" : ", --") + option.get_lnames()[0];
  }
  return option.get_type_size() > 0 ? name + " " + option.get_type_name() : name;
}

std::string flags(const CLI::App& app) {
  std::string out, general;
  for (const std::string& group : app.get_groups()) {
    std::string entries;
    for (const CLI::Option* option : app.get_options()) {
      if (option->get_group() != group || group.empty()) continue;
      const std::string value = option->get_default_str();
      entries += entry(flag_name(*option),
                       option->get_description() + (value.empty() ? "" : " [" + value + "]"));
    }
    if (group == "Options") {
      general = "\nGeneral:\n" + entries;
    } else if (!entries.empty()) {
      out += "\n" + group + ":\n" + entries;
    }
  }
  return out + general;
}

std::string usage(const CLI::App& app) {
  std::string out = "Usage: " + full_name(app);
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional()) out += " " + option->get_name(true);
  }
  const bool has_commands = !app.get_subcommands(nullptr).empty();
  return out + (has_commands ? " COMMAND [flags]\n" : " [flags]\n");
}

std::string hint(const std::string& word, const std::vector<std::string>& known, const std::string& list) {
  const std::string near = nearest(word, known);
  return near.empty() ? fmt::format("`{} --help` lists them", list) : fmt::format("did you mean {}?", near);
}

}  // namespace

std::string help_text(const CLI::App& app, bool brief) {
  std::string out = app.get_description() + "\n\n" + usage(app);
  if (!app.get_footer().empty()) out += "\nExamples:\n" + app.get_footer();
  std::string commands;
  for (const CLI::App* command : app.get_subcommands(nullptr)) {
    const std::string text = command->get_description();
    commands += entry(command->get_name(), text.substr(0, text.find_first_of(".\n")));
  }
  if (!commands.empty()) out += "\nCommands (`" + full_name(app) + " COMMAND --help` says more):\n" + commands;
  if (brief) return out + fmt::format("\n`{} --help` lists every flag.\n", full_name(app));
  return out + flags(app) + "\n" + kExitCodes;
}

const CLI::App& chosen(const CLI::App& program) {
  const auto commands = program.get_subcommands();
  return commands.empty() ? program : chosen(*commands[0]);
}

std::string usage_error(const CLI::App& program, const CLI::ParseError& e) {
  const std::string text = e.what();
  const std::string name = text.substr(0, text.find_first_of(": "));
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&e)) return name + ": expected a value, got none";
  if (dynamic_cast<const CLI::RequiredError*>(&e)) {
    const CLI::App& command = chosen(program);
    return fmt::format("{}: expected {}, got none; see `{} -h`", command.get_name(), name, full_name(command));
  }
  return text;
}

void refuse_unknown(const CLI::App& program) {
  const CLI::App& app = chosen(program);
  const std::vector<std::string> words = app.remaining();
  if (words.empty()) return;
  const std::string word = words[0].substr(0, words[0].find('=')), name = full_name(app);
  const std::string where = app.get_parent() ? app.get_name() + ": " : "";
  std::vector<std::string> known;
  if (word.starts_with("-")) {
    for (const CLI::Option* option : app.get_options()) {
      for (const std::string& flag : option->get_lnames()) known.push_back("--" + flag);
    }
    throw UsageError(fmt::format("{}unknown flag {}; {}", where, word, hint(word, known, name)));
  }
  for (const CLI::App* command : app.get_subcommands(nullptr)) known.push_back(command->get_name());
  if (known.empty()) throw UsageError(fmt::format("{}unexpected argument '{}'; see `{} -h`", where, word, name));
  throw UsageError(fmt::format("{}unknown command '{}'; {}", where, word, hint(word, known, name)));
}

}  // namespace tandem
