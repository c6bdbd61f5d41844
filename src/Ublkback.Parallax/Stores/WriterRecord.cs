using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Stores;

/// <summary>Who has a VDI open for writing, or had it last: for people to read. The lock is the file's.</summary>
/// <param name="Process">The process.</param>
/// <param name="SinceMs">Since when, in milliseconds since 1970.</param>
/// <param name="Host">On which host.</param>
/// <param name="Owner">For whom.</param>
internal sealed record WriterRecord(int Process, long SinceMs, string Host, string Owner)
{
    private const ulong Magic = 0x5245_444C_4F48_4456; // "VDHOLDER"
    private const int TextLength = 255;

    public static WriterRecord ForThis(string owner) =>
        new(
            Environment.ProcessId, DateTimeOffset.UtcNow.ToUnixTimeMilliseconds(), Cut(Environment.MachineName),
            Cut(owner));

    public byte[] ToBlock()
    {
        byte[] block = new byte[VdiFormat.BlockSize];
        FieldWriter fields = new(block);
        fields.Write(Magic);
        fields.Write((uint)Process);
        fields.Write(SinceMs);
        fields.Write(Host, TextLength);
        fields.Write(Owner, TextLength);
        CheckedBlock.Seal(block);
        return block;
    }

    /// <summary>Reads it; null when nobody ever was.</summary>
    public static WriterRecord? TryRead(ReadOnlySpan<byte> block)
    {
        FieldReader fields = new(block);
        if (fields.ReadUInt64() != Magic || !CheckedBlock.IsValid(block)) return null;
        return new WriterRecord(
            (int)fields.ReadUInt32(), fields.ReadInt64(), fields.ReadText(TextLength), fields.ReadText(TextLength));
    }

    /// <inheritdoc/>
    public override string ToString() =>
        $"{Owner} (process {Process} on {Host}, since "
        + $"{DateTimeOffset.FromUnixTimeMilliseconds(SinceMs):yyyy-MM-dd HH:mm:ss} UTC)";

    private static string Cut(string text) => text.Length > 60 ? text[..60] : text;
}
