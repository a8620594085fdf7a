// Which Tandem this is.
#pragma once

namespace tandem {

const char* version();   // "0.1.0"
const char* commit();    // the commit it was built from, or "unknown"
const char* compiler();  // "GCC 12.2.0"

}  // namespace tandem
