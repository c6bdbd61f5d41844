using Ublkback.Backend.Report;
using Ublkback.Block;

namespace Ublkback.Backend.Requests;

/// <summary>
/// The disk that a ring serves, as it stays for the life of a connection. Requests read these values at no cost.
/// </summary>
/// <param name="Domid">The frontend's domain.</param>
/// <param name="Image">The open image.</param>
/// <param name="Log">The log of the vbd.</param>
/// <param name="HasLostWrites">
/// True if an earlier daemon lost acknowledged writes. A newly opened image cannot know this, so every flush fails.
/// </param>
/// <param name="HoldsFailed">True if requests that the storage fails wait until it is repaired.</param>
[DataPath]
internal sealed record ServedDisk(
    ushort Domid, IBlockImage Image, VbdLog Log, bool HasLostWrites, bool HoldsFailed);
