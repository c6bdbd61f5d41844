namespace Ublkback.Block;

/// <summary>The shape of an open image.</summary>
/// <param name="SectorCount">Size in units of 512 bytes.</param>
/// <param name="SectorSize">Smallest unit in bytes that a request may address: 512 or 4096.</param>
/// <param name="PhysicalSectorSize">Unit in bytes that the storage below writes without reading first.</param>
/// <param name="IsReadOnly">Whether writes are refused.</param>
public readonly record struct ImageGeometry(
    ulong SectorCount, int SectorSize, int PhysicalSectorSize, bool IsReadOnly);
