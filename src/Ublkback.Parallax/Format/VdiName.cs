using Ublkback.Block;

namespace Ublkback.Parallax.Format;

/// <summary>
/// What VDIs and their snapshots may be called: letters, digits, '.', '-' and '_' of ASCII, the first of them a letter
/// or digit.
/// </summary>
internal sealed record VdiName(string Vdi, string? Snapshot)
{
    /// <summary>Most characters of a name.</summary>
    public const int MaxLength = 63;

    /// <summary>Bytes of a field that holds a name and its length.</summary>
    public const int FieldLength = MaxLength + 1;

    /// <summary>Reads <c>NAME</c> or <c>NAME@SNAPSHOT</c>.</summary>
    /// <exception cref="TargetException">It is neither.</exception>
    public static VdiName Parse(string text)
    {
        int at = text.IndexOf('@', StringComparison.Ordinal);
        return at < 0 ? new VdiName(Check(text), null) : new VdiName(Check(text[..at]), Check(text[(at + 1)..]));
    }

    /// <summary>Reads <c>NAME</c>.</summary>
    /// <exception cref="TargetException">It is none.</exception>
    public static string Check(string name) => IsOne(name)
        ? name
        : throw new TargetException(
            $"'{name}' is no name",
            $"use up to {MaxLength} letters, digits, '.', '-' and '_', the first a letter or digit");

    /// <summary>Whether a text can be a <c>NAME</c>.</summary>
    public static bool IsOne(string name) =>
        name.Length is > 0 and <= MaxLength && char.IsAsciiLetterOrDigit(name[0])
            && name.All(letter => char.IsAsciiLetterOrDigit(letter) || letter is '.' or '-' or '_');

    /// <inheritdoc/>
    public override string ToString() => Snapshot is null ? Vdi : $"{Vdi}@{Snapshot}";
}
