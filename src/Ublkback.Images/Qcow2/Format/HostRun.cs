using Ublkback.Block;

namespace Ublkback.Images.Qcow2.Format;

/// <summary>Neighbouring clusters of the file, or why there are none.</summary>
/// <param name="Status">Whether there are some.</param>
/// <param name="Offset">The first byte.</param>
/// <param name="Count">How many clusters.</param>
/// <param name="IsFresh">Whether nothing was ever written there, so that they read as zeros.</param>
internal readonly record struct HostRun(BlockStatus Status, long Offset = 0, int Count = 0, bool IsFresh = false);
