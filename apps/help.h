// Help and usage errors of the command line.
#pragma once

#include <string>

namespace CLI {
class App;
class ParseError;
}  // namespace CLI

namespace tandem {

// What --help prints: description, examples (the app's footer), usage, every flag with its default, exit codes.
// `brief`, for -h: without the flags.
std::string help_text(const CLI::App& app, bool brief);

// The subcommand that the command line chose, the innermost one; `program` itself if none.
const CLI::App& chosen(const CLI::App& program);

// What is wrong with the command line, in one sentence.
std::string usage_error(const CLI::App& program, const CLI::ParseError& error);

// Throws UsageError for words that no flag or subcommand took, naming the nearest known one, and where a
// subcommand is lacking.
void refuse_unknown(const CLI::App& program);

}  // namespace tandem
