using Ublkback.Block;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Stores;

/// <summary>
/// Opens stores by what people write: <c>file:FOLDER</c>, or <c>rados:POOL</c> with <c>?conf=/path&amp;id=USER</c>.
/// </summary>
internal static class VdiStoreFactory
{
    private const string FilePrefix = "file:";
    private const string RadosPrefix = "rados:";

    /// <summary>Opens a store; null for the one that is used unless something else is said.</summary>
    /// <param name="text">Which store.</param>
    /// <param name="options">The options of the target that it was in, if it was in one.</param>
    /// <param name="makes">Whether it is made if it is not there.</param>
    /// <param name="isForCommand">Whether a command uses it, which ends when something takes too long.</param>
    /// <exception cref="TargetException">There is none.</exception>
    public static IVdiStore Open(
        string? text, IReadOnlyDictionary<string, string>? options = null, bool makes = false,
        bool isForCommand = false)
    {
        text ??= FilePrefix + FileStore.DefaultFolder;
        if (text.StartsWith(FilePrefix, StringComparison.Ordinal))
            return FileStore.Open(text[FilePrefix.Length..], makes);
        if (!text.StartsWith(RadosPrefix, StringComparison.Ordinal))
            throw new TargetException(
                $"the store {text} is of no kind that this program knows",
                $"use {FilePrefix}FOLDER or {RadosPrefix}POOL");
        (string pool, Dictionary<string, string> all) = Split(text[RadosPrefix.Length..], options);
        return RadosStore.Open(RadosAddress.Of(pool, all) with { IsForCommand = isForCommand }, makes);
    }

    // In a target the options of the store are among the target's.
    private static (string Pool, Dictionary<string, string> Options) Split(
        string text, IReadOnlyDictionary<string, string>? options)
    {
        string[] parts = text.Split('?', 2);
        Dictionary<string, string> all = options is null ? [] : new(options);
        foreach (string option in parts.Length < 2 ? [] : parts[1].Split('&'))
        {
            string[] pair = option.Split('=', 2);
            if (pair.Length < 2 || !RadosAddress.Options.Contains(pair[0]))
                throw new TargetException($"unknown option {pair[0]} of the store {RadosPrefix}{text}: it takes "
                    + string.Join(", ", RadosAddress.Options));
            all[pair[0]] = pair[1];
        }

        return (parts[0], all);
    }
}
