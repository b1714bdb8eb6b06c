#pragma once

#include "graph.hpp"

// A graph of the CPU.
iad::Graph *iad_new_recording();
