namespace Ublkback.Block;

/// <summary>The shape of an open image.</summary>
/// <param name="SectorCount">Size in units of 512 bytes.</param>
/// <param name="SectorSize">Smallest unit in bytes that a request may address: 512 or 4096.</param>
/// <param name="PhysicalSectorSize">Unit in bytes that the storage below writes without reading first.</param>
/// <param name="IsReadOnly">Whether writes are refused.</param>
/// <param name="DiscardGranularity">Unit in bytes that a discard can free; 0 when the image knows no discard.</param>
public sealed record ImageGeometry(
    ulong SectorCount, int SectorSize, int PhysicalSectorSize, bool IsReadOnly, int DiscardGranularity = 0);
