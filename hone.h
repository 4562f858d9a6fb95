#pragma once
// Everything a program needs.
