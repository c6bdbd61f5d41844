namespace Ublkback.Plugins;

/// <summary>What became of a file in the folder of plugins.</summary>
/// <param name="File">The file's name.</param>
/// <param name="Refusal">Why it was refused; null when it was not.</param>
/// <param name="Names">The hooks and schemes that it brought, for people to read.</param>
public sealed record PluginReport(string File, string? Refusal, string Names);
